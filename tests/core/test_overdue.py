"""When a run has trained for too long without anything new to resume from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.overdue import overdue_since
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.spec import Cadence, Spec

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPEC = Spec(("train",), ("g5.xlarge",), cadence=Cadence(ceiling_s=600))
RUN = Run("run-1", SPEC, NOON, attempts=(Attempt(1, AttemptState.RUNNING, "i-1", first_step_at=NOON),))


def verified(at: datetime) -> Checkpoint:
    return Checkpoint(Commit("run-1", 1, 1, 5, "key", "v", "digest", 1), Verdict(1, 1, True, checked_at=at))


def test_three_of_the_longest_intervals_without_a_checkpoint_are_too_long() -> None:
    assert overdue_since(RUN, NOON + 30 * MINUTE, 1.0) is None
    assert overdue_since(RUN, NOON + 31 * MINUTE, 1.0) == NOON


def test_a_verified_checkpoint_begins_the_time_anew() -> None:
    run = replace(RUN, checkpoints=(verified(NOON + 20 * MINUTE),))

    assert overdue_since(run, NOON + 31 * MINUTE, 1.0) is None
    assert overdue_since(run, NOON + 51 * MINUTE, 1.0) == NOON + 20 * MINUTE


def test_a_checkpoint_that_nobody_verified_does_not() -> None:
    run = replace(RUN, checkpoints=(replace(verified(NOON), verdict=None),))

    assert overdue_since(run, NOON + 31 * MINUTE, 1.0) == NOON


@pytest.mark.parametrize("state", [s for s in AttemptState if s is not AttemptState.RUNNING])
def test_only_an_attempt_that_trains_is_watched(state: AttemptState) -> None:
    run = replace(RUN, attempts=(replace(RUN.attempts[0], state=state),))

    assert overdue_since(run, NOON + 600 * MINUTE, 1.0) is None


def test_who_saves_by_steps_has_no_longest_interval() -> None:
    run = replace(RUN, spec=replace(SPEC, cadence=Cadence(every_steps=100)))

    assert overdue_since(run, NOON + 600 * MINUTE, 1.0) is None


def test_time_that_runs_faster_makes_it_overdue_earlier() -> None:
    assert overdue_since(RUN, NOON + 2 * MINUTE, 0.05) == NOON
