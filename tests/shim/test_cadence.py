"""When checkpoints are due, and what fits into the rest of a notice."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spotrelay.core.cadence import (
    SAFETY,
    Costs,
    Flying,
    LastSave,
    Progress,
    announced_share,
    due,
    first_interval,
    interval,
    last_save,
    young,
)
from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.hazard import Hazard, Law, Life, learned
from spotrelay.core.spec import Cadence

seconds = st.floats(0.001, 10_000)
shares = st.floats(0, 1)
MEMORYLESS = Hazard((Law(1.0, 1e9 / 7200, 1e9),))  # one loss in two hours, at every age


def test_the_interval_is_youngs_between_floor_and_ceiling() -> None:
    costs = Costs(stall_s=4.0, hazard=MEMORYLESS)

    assert young(costs) == pytest.approx(math.sqrt(2 * 4 * 7200), rel=1e-3)
    assert interval(Cadence(), costs) == pytest.approx(240.0, rel=1e-3)
    assert interval(Cadence(floor_s=300), costs) == 300
    assert interval(Cadence(floor_s=10, ceiling_s=100), costs) == 100


@given(stall=seconds, durable=st.floats(0, 40), drag=shares, announced=shares, age=seconds, scale=st.floats(0.01, 1))
def test_the_interval_stays_within_the_users_bounds(
    stall: float, durable: float, drag: float, announced: float, age: float, scale: float
) -> None:
    cadence = Cadence(floor_s=60, ceiling_s=1800)

    found = interval(cadence, Costs(stall, durable, drag, announced), age, scale)

    assert min(60 * scale, 1.25 * durable) <= found <= max(1800 * scale, 1.25 * durable)
    assert found >= 1.25 * durable


@given(stall=seconds, durable=st.floats(0.1, 1e6), saves=st.integers(0, 3), age=seconds)
def test_no_checkpoint_is_due_before_the_one_before_it_is_expected_to_be_durable(
    stall: float, durable: float, saves: int, age: float
) -> None:
    costs = Costs(stall, durable)

    assert due(Cadence(), costs, Progress(durable, 5, saves, age)) is None


@given(stall=seconds, age=seconds, older=seconds, announced=shares)
def test_an_old_machine_is_saved_less_often_than_a_fresh_one(
    stall: float, age: float, older: float, announced: float
) -> None:
    costs = Costs(stall, announced=announced)

    assert young(costs, age + older) >= young(costs, age) * (1 - 1e-9)


def test_a_slow_bucket_makes_checkpoints_rarer_than_the_ceiling() -> None:
    assert interval(Cadence(ceiling_s=100), Costs(durable_s=400.0)) == 500


def test_a_snapshot_that_stalls_nobody_still_costs_its_upload() -> None:
    free, dragging = (Costs(0.0, 50.0, drag) for drag in (0.0, 0.1))

    assert interval(Cadence(), free) == pytest.approx(62.5)  # bounded by the upload alone
    assert interval(Cadence(), dragging) > 150


def test_losses_that_were_announced_in_time_lengthen_the_interval() -> None:
    costs = Costs(hazard=MEMORYLESS)

    assert young(replace(costs, announced=0.75)) == pytest.approx(2 * young(costs), rel=0.05)


def test_announcements_lengthen_nothing_when_a_last_save_takes_longer_than_a_notice() -> None:
    slow = Costs(durable_s=90.0, announced=0.9)

    assert young(slow) == young(replace(slow, announced=0.0))
    assert young(replace(slow, last_s=30.0)) > 2 * young(slow)  # a last save is faster, and was measured


def test_announcements_count_only_when_they_were_measured() -> None:
    assert announced_share(0, 0) == 0.0
    assert announced_share(9, 9) > 0.9
    assert announced_share(10, 0) == 0.0


@given(losses=st.integers(0, 1000), announced=st.integers(0, 1000))
def test_the_announced_share_is_a_share_below_one(losses: int, announced: int) -> None:
    assert 0 <= announced_share(losses, announced) < 1


def test_the_first_checkpoint_is_early_and_the_second_is_not() -> None:
    cadence = Cadence(floor_s=60)

    assert due(cadence, Costs(), Progress(14, 3, 0)) is None
    assert due(cadence, Costs(), Progress(16, 3, 0)) is SaveReason.FIRST
    assert due(cadence, Costs(), Progress(16, 3, 1)) is None
    assert due(cadence, Costs(), Progress(5000, 3, 1)) is SaveReason.CADENCE


def test_a_first_checkpoint_that_is_known_to_be_dear_waits_until_it_is_worth_it() -> None:
    costs = Costs(stall_s=5.0, durable_s=10.0, drag=0.0)

    assert first_interval(Cadence(), costs) == pytest.approx(min(5.0 / 0.02, interval(Cadence(), costs)))
    assert first_interval(Cadence(), replace(costs, stall_s=0.1)) == 15.0


@given(stall=seconds, durable=st.floats(0, 1e4), lives=st.lists(st.builds(Life, seconds, st.booleans()), max_size=5))
def test_the_first_checkpoint_is_never_later_than_any_other(stall: float, durable: float, lives: list[Life]) -> None:
    costs = Costs(stall, durable, hazard=learned(lives, 7200.0))

    assert first_interval(Cadence(), costs) <= interval(Cadence(), costs)


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


def test_a_scaled_clock_scales_ages_and_losses() -> None:
    costs = Costs(stall_s=1.0)
    faster = replace(costs, stall_s=0.1)

    assert young(faster, 360.0, 0.1) == pytest.approx(young(costs, 3600.0) * 0.1)


@pytest.mark.parametrize(
    ("left_s", "whole_s", "flying", "new_steps", "boundary_s", "expected"),
    [
        (100, 10, None, 5, 0, LastSave.NEW),
        (100, 0, None, 5, 0, LastSave.NEW),  # never measured: nothing is lost by a try
        (10, 10, None, 5, 0, LastSave.NOTHING),
        (0, 0, None, 5, 0, LastSave.NOTHING),
        (100, 10, None, 0, 0, LastSave.NOTHING),  # everything is committed already
        (100, 10, Flying(2), 5, 0, LastSave.FINISH_THEN_NEW),
        (14, 10, Flying(0), 5, 0, LastSave.NEW),  # both do not fit, the newer one does
        (12, 10, Flying(9), 5, 0, LastSave.FINISH),  # only the one under way fits
        (100, 10, Flying(2), 0, 0, LastSave.FINISH),
        (40, 10, Flying(2, 3000, 100), 5, 0, LastSave.NEW),  # slower than its age makes believe
        (16, 10, Flying(1, 1, 100), 5, 0, LastSave.FINISH_THEN_NEW),  # faster than its age makes believe
        (100, 10, Flying(2), 5, 95, LastSave.FINISH),  # the step that is being made ends too late
        (100, 10, None, 5, 95, LastSave.NOTHING),
        (100, 10, Flying(0, 6000, 100), 5, 80, LastSave.FINISH_THEN_NEW),  # it is over when the step ends
    ],
)
def test_the_most_that_fits_into_the_rest_of_a_notice_is_done(
    left_s: float, whole_s: float, flying: Flying | None, new_steps: int, boundary_s: float, expected: LastSave
) -> None:
    assert last_save(left_s, whole_s, flying, new_steps, boundary_s) is expected


flights = st.none() | st.builds(Flying, seconds, st.integers(0, 10**12), st.floats(0, 1e10))


@given(left=st.floats(-10, 300), whole=st.floats(0, 300), flying=flights, steps=st.integers(0, 3), boundary=seconds)
def test_a_new_save_is_begun_only_where_its_measured_time_fits(
    left: float, whole: float, flying: Flying | None, steps: int, boundary: float
) -> None:
    choice = last_save(left, whole, flying, steps, boundary)

    if choice in (LastSave.NEW, LastSave.FINISH_THEN_NEW):
        assert steps and boundary + whole * SAFETY < left
    if choice in (LastSave.FINISH, LastSave.FINISH_THEN_NEW):
        assert flying is not None


@given(left=st.floats(0, 300), more=st.floats(0, 300), whole=st.floats(0, 300), flying=flights, boundary=seconds)
def test_more_time_never_means_less_is_saved(
    left: float, more: float, whole: float, flying: Flying | None, boundary: float
) -> None:
    assume(left > 0)
    worth = [LastSave.NOTHING, LastSave.FINISH, LastSave.NEW, LastSave.FINISH_THEN_NEW]

    less, much = (worth.index(last_save(each, whole, flying, 1, boundary)) for each in (left, left + more))

    assert less <= much


def test_a_thousand_decisions_take_a_moment() -> None:
    begun = time.perf_counter()
    for _ in range(1000):
        last_save(100, 10, Flying(2, 100, 10), 5, 3)

    assert time.perf_counter() - begun < 1.0
