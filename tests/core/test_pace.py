"""Step times, and what a save takes from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.pace import MOST_DRAG, SUPPOSED_DRAG, Pace


def test_a_step_is_as_long_as_three_of_four_and_one_that_compiles_is_no_measure() -> None:
    pace = Pace()
    assert pace.step_s == 0

    for duration in (90.0, 1.0, 1.0, 2.0, 3.0):
        pace.see(duration, saving=False)
    assert pace.step_s == 3.0

    for _ in range(100):
        pace.see(1.0, saving=False)
    assert pace.step_s == 1.0


def test_the_drag_of_a_save_is_supposed_until_enough_steps_have_shown_it() -> None:
    pace = Pace()
    for _ in range(20):
        pace.see(1.0, saving=False)
    assert pace.drag == SUPPOSED_DRAG

    for _ in range(20):
        pace.see(1.25, saving=True)
    assert pace.drag == pytest.approx(0.2)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans())))
def test_the_drag_is_a_share_whatever_was_measured(steps: list[tuple[float, bool]]) -> None:
    pace = Pace()
    for duration, saving in steps:
        pace.see(duration, saving)

    assert 0 <= pace.drag <= MOST_DRAG
