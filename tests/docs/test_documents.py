from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.drawings import BLOCK, MADE, renewed

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#]*)(#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_shows_of_the_code_is_what_the_code_has(page: Path) -> None:
    assert renewed(page.read_text()) == page.read_text(), "run `make docs`"


def test_every_drawing_is_shown_somewhere() -> None:
    shown = {m.group("name") for page in PAGES for m in BLOCK.finditer(page.read_text())}

    assert shown == set(MADE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        path = (page.parent / target) if target else page
        assert path.exists(), f"{page.name} points to {target}"
        if anchor and path.suffix == ".md":
            assert anchor[1:] in _anchors(path), f"{page.name} points to {target}{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
