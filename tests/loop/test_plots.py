"""The plots show every attempt and every reclaim."""

from __future__ import annotations

from pathlib import Path

from spotrelay.console.demo.plots import in_terminal, save_png
from tests.loop.forged import evidence


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    save_png(evidence(), tmp_path / "loss.png")

    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_terminal_gets_a_line_for_each_reclaim_and_no_escape_codes() -> None:
    drawn = in_terminal(evidence(), 90)

    assert "\x1b" not in drawn
    assert any(line.count("│") >= 6 for line in drawn.splitlines())
