"""A program that gets nowhere is told from one that is slow, validates, saves, or that we could not look at."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from spotrelay.core.hang import FLOOR, bound, looked, stands_still, suspected, why_hung
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec
from spotrelay.testing.clock import START

MINUTE = timedelta(minutes=1)
SITE = Site()
BEAT = Heartbeat("r1", 1, 1, Phase.TRAINING, step=7, first_step=True, signs=9, longest_s=2.0)
ATTEMPT = Attempt(1, AttemptState.RUNNING, "i-1", running_at=START, last_step=7)


def a_run(beat: Heartbeat = BEAT, **spec: float) -> Run:
    made = Run("r1", Spec(("train",), ("g5.xlarge",), **spec), START, attempts=(ATTEMPT,))  # type: ignore[arg-type]
    return replace(made, heartbeats=(beat,))


def watched(run: Run, minutes: int, beat: Heartbeat = BEAT, every: timedelta = MINUTE) -> tuple[Run, datetime]:
    """The run after so many looks, one a minute, at the same signs in ever new heartbeats."""
    now = START
    for number in range(minutes):
        now = START + number * every
        run = looked(replace(run, heartbeats=(replace(beat, counter=number + 1),)), now, SITE)
    return run, now


def hung(run: Run, now: datetime) -> bool:
    current = run.current
    assert current is not None
    return stands_still(run, current, now, SITE) is not None


def test_a_program_whose_heartbeat_goes_on_and_whose_steps_do_not_hangs_after_the_bound() -> None:
    almost, before = watched(a_run(), 30)
    over, now = watched(a_run(), 32)

    assert not hung(almost, before)
    assert hung(over, now)


def test_the_bound_is_learnt_from_the_longest_pause_that_the_run_has_survived() -> None:
    assert bound(a_run()) == FLOOR
    assert bound(a_run(replace(BEAT, longest_s=1200.0))) == timedelta(seconds=12_000)


@pytest.mark.parametrize(("minutes", "expected"), [(5.0, 5 * MINUTE), (0.0, None)])
def test_the_spec_sets_the_bound_or_switches_it_off(minutes: float, expected: timedelta | None) -> None:
    assert bound(a_run(replace(BEAT, longest_s=1200.0), hang_minutes=minutes)) == expected


@pytest.mark.parametrize(
    "beat",
    [
        replace(BEAT, phase=Phase.RESTORING),
        replace(BEAT, phase=Phase.WAITING),
        replace(BEAT, phase=Phase.DRAINING),
        replace(BEAT, phase=Phase.DONE),
        replace(BEAT, first_step=False),  # it may compile, or never tell of a step
        replace(BEAT, signs=0),  # a shim that is older
    ],
)
def test_who_does_not_train_yet_or_cannot_tell_is_never_taken_for_hung(beat: Heartbeat) -> None:
    assert not hung(*watched(a_run(beat), 500, beat))


def test_a_validation_that_gives_signs_is_no_hang() -> None:
    run, now = a_run(), START
    for number in range(300):
        now = START + number * MINUTE
        run = looked(replace(run, heartbeats=(replace(BEAT, signs=9 + number // 20),)), now, SITE)
        assert not hung(run, now)


def test_time_in_which_nobody_could_look_does_not_count() -> None:
    assert not hung(*watched(a_run(), 30, every=timedelta(minutes=10)))


def test_two_looks_are_too_few_to_judge_by_however_far_they_lie_apart() -> None:
    assert not hung(*watched(a_run(hang_minutes=1.0), 2, every=2 * MINUTE))
    assert hung(*watched(a_run(hang_minutes=1.0), 3, every=2 * MINUTE))


def test_its_machine_is_ended_once_its_stacks_had_time_to_be_written() -> None:
    run, now = watched(a_run(), 35)
    run = suspected(run, 1, now)
    later = now + 3 * MINUTE
    current = run.current
    assert current is not None

    assert why_hung(run, current, now, SITE) == ""
    assert "nothing has followed step 7 for 37 minutes" in why_hung(run, current, later, SITE)


def test_a_program_that_goes_on_after_all_is_left_alone() -> None:
    run, now = watched(a_run(), 35)
    run = suspected(run, 1, now)

    run = looked(replace(run, heartbeats=(replace(BEAT, signs=10),)), now + MINUTE, SITE)

    current = run.current
    assert current is not None and current.hung_at is None
    assert [entry.kind for entry in run.news] == ["hang", "moves-on"]
