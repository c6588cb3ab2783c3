"""The page with the measurements is written by the benchmarks, and shows each of them."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec

import pytest

from benchmarks.page import BENCHMARKS, BLOCK, NotMeasured, block, last_object, renewed

AT = datetime(2026, 1, 1, tzinfo=UTC)
STORM = {"runs": 3, "notice_to_launch_s": {"p50": 1.5, "p95": 2.5}}


def test_every_benchmark_has_its_block_and_has_been_measured() -> None:
    pages = {benchmark.page for benchmark in BENCHMARKS.values()}
    shown = {m.group("name"): m.group(0) for page in pages for m in BLOCK.finditer(page.read_text())}

    assert set(shown) == set(BENCHMARKS)
    for name, text in shown.items():
        assert f"`python -m {BENCHMARKS[name].module}`" in text, f"run `python -m benchmarks.page {name}`"


def test_every_command_on_the_page_is_there() -> None:
    assert all(find_spec(benchmark.module) for benchmark in BENCHMARKS.values())


def test_a_result_is_shown_figure_by_figure_with_its_command() -> None:
    text = block("storm", STORM, "load average 0.1 before", AT)

    assert text.startswith("`python -m benchmarks.storm`, 2026-01-01, ")
    assert "| runs | 3 |" in text and "| notice to launch s p95 | 2.5 |" in text


def test_only_the_measured_block_changes() -> None:
    page = "a\n<!-- measured: storm -->\nold\n<!-- end -->\nb\n<!-- measured: cold-start -->\nkept\n<!-- end -->\n"

    assert renewed(page, "storm", "new\n") == page.replace("old\n", "new\n")


@pytest.mark.parametrize("output", ["", "text", "3"])
def test_a_benchmark_without_a_result_leaves_the_page_as_it_is(output: str) -> None:
    with pytest.raises(NotMeasured):
        last_object(output)
