"""Which machines are one too many, and when life without progress is worth an alarm."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec
from spotrelay.core.suspicion import surplus, without_progress
from spotrelay.testing.clock import START

SITE = Site()
MINUTE = timedelta(minutes=1)
LATER = START + 20 * MINUTE
TRAINS = Attempt(2, AttemptState.RUNNING, "i-2", launched_at=START, running_at=START, first_step_at=START)
ELDER = replace(TRAINS, generation=1, instance_id="i-1")


def a_run(*attempts: Attempt, **rest: object) -> Run:
    return replace(Run("r1", Spec(("train",), ("g5.xlarge",)), START, attempts=attempts), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("elder", "at", "named"),
    [
        (ELDER, START + 5 * MINUTE, []),  # a handover
        (ELDER, LATER, [1]),
        (replace(ELDER, state=AttemptState.ENDED, ended_at=START), LATER, [1]),  # EC2 does not end it
        (replace(ELDER, state=AttemptState.ENDED, ended_at=START, machine_gone_at=START), LATER, []),
        (replace(ELDER, state=AttemptState.DRAINING, deadline=START + 10 * MINUTE), LATER, []),
        (replace(ELDER, state=AttemptState.DRAINING, deadline=START + 2 * MINUTE), LATER, [1]),
    ],
)
def test_a_machine_beside_the_one_that_should_live_is_named_once_nothing_explains_it(
    elder: Attempt, at: datetime, named: list[int]
) -> None:
    assert [a.generation for a in surplus(a_run(elder, TRAINS), at, SITE)] == named


def test_one_machine_that_trains_is_never_too_many() -> None:
    assert surplus(a_run(TRAINS), START + 1000 * MINUTE, SITE) == ()


def test_a_machine_of_a_run_that_is_over_is_named() -> None:
    run = a_run(TRAINS, outcome=RunStatus.CANCELLED, ended_at=START)

    assert len(surplus(run, LATER, SITE)) == 1


def test_a_failed_machine_that_stays_for_a_person_is_not_named() -> None:
    failed = replace(ELDER, state=AttemptState.ENDED, ended_at=START, crashed=True)
    run = a_run(failed, TRAINS, spec=Spec(("train",), ("g5.xlarge",), keep_failed_minutes=60))

    assert surplus(run, LATER, SITE) == ()


def test_an_attempt_without_a_first_step_is_told_of_after_an_hour() -> None:
    run = a_run(replace(TRAINS, first_step_at=None))

    assert without_progress(run, START + 50 * MINUTE, SITE) is None
    assert without_progress(run, START + 70 * MINUTE, SITE) == 70 * MINUTE
