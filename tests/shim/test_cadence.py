"""When checkpoints are due, and what fits into the rest of a notice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.cadence import (
    PRIOR_UPTIME_S,
    Costs,
    LastSave,
    Progress,
    due,
    interval,
    last_save,
    learned_uptime,
    young,
)
from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.spec import Cadence

seconds = st.floats(0.001, 10_000)


def test_the_interval_is_youngs_between_floor_and_ceiling() -> None:
    costs = Costs(stall_s=4.0, uptime_s=7200.0)

    assert young(costs) == pytest.approx(math.sqrt(2 * 4 * 7200))
    assert interval(Cadence(), costs) == pytest.approx(240.0)
    assert interval(Cadence(floor_s=300), costs) == 300
    assert interval(Cadence(floor_s=10, ceiling_s=100), costs) == 100


@given(stall=seconds, uptime=seconds, announced=st.floats(0, 1), scale=st.floats(0.01, 1))
def test_the_interval_stays_within_the_users_bounds(
    stall: float, uptime: float, announced: float, scale: float
) -> None:
    cadence = Cadence(floor_s=60, ceiling_s=1800)

    found = interval(cadence, Costs(stall, 0.0, uptime, announced), scale)

    assert 60 * scale <= found <= 1800 * scale


def test_a_slow_bucket_makes_checkpoints_rarer_than_the_ceiling() -> None:
    assert interval(Cadence(ceiling_s=100), Costs(durable_s=400.0)) == 500


def test_losses_that_were_announced_in_time_lengthen_the_interval() -> None:
    assert young(Costs(announced=0.75)) == pytest.approx(2 * young(Costs()))


def test_the_mean_uptime_starts_from_the_prior_and_learns() -> None:
    assert learned_uptime([], 0) == PRIOR_UPTIME_S
    assert learned_uptime([600.0] * 99, 99) == pytest.approx((PRIOR_UPTIME_S + 59_400) / 100)


def test_the_first_checkpoint_is_early_and_the_second_is_not() -> None:
    cadence = Cadence(floor_s=60)

    assert due(cadence, Costs(), Progress(14, 3, 0)) is None
    assert due(cadence, Costs(), Progress(16, 3, 0)) is SaveReason.FIRST
    assert due(cadence, Costs(), Progress(16, 3, 1)) is None
    assert due(cadence, Costs(), Progress(500, 3, 1)) is SaveReason.CADENCE


def test_fixed_steps_and_fixed_seconds_are_kept_to() -> None:
    assert due(Cadence(every_steps=5), Costs(), Progress(9999, 4, 0)) is None
    assert due(Cadence(every_steps=5), Costs(), Progress(0, 5, 0)) is SaveReason.CADENCE
    assert due(Cadence(every_s=20), Costs(), Progress(19, 4, 0)) is None
    assert due(Cadence(every_s=20), Costs(), Progress(21, 4, 0)) is SaveReason.CADENCE


def test_nothing_is_due_before_a_step_was_made() -> None:
    assert due(Cadence(), Costs(), Progress(10_000, 0, 0)) is None


def test_a_scaled_clock_scales_the_users_seconds() -> None:
    assert due(Cadence(every_s=20), Costs(), Progress(1.1, 1, 0), scale=0.05) is SaveReason.CADENCE
    assert interval(Cadence(floor_s=60), Costs(stall_s=1e-6), scale=0.05) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("left_s", "whole_s", "flying_s", "new_steps", "expected"),
    [
        (100, 10, None, 5, LastSave.NEW),
        (100, 0, None, 5, LastSave.NEW),  # never measured: nothing is lost by a try
        (10, 10, None, 5, LastSave.NOTHING),
        (0, 0, None, 5, LastSave.NOTHING),
        (100, 10, None, 0, LastSave.NOTHING),  # everything is committed already
        (100, 10, 2, 5, LastSave.FINISH_THEN_NEW),
        (14, 10, 0, 5, LastSave.NEW),  # both do not fit, the newer one does
        (12, 10, 9, 5, LastSave.FINISH),  # only the one under way fits
        (100, 10, 2, 0, LastSave.FINISH),
    ],
)
def test_the_most_that_fits_into_the_rest_of_a_notice_is_done(
    left_s: float, whole_s: float, flying_s: float | None, new_steps: int, expected: LastSave
) -> None:
    assert last_save(left_s, whole_s, flying_s, new_steps) is expected
