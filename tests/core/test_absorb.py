"""What attempts say about themselves, taken into the run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from spotrelay.core.checkpoint import Checkpoint, Commit, SaveReason
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.record import absorb
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def test_steps_that_a_zombie_makes_after_its_end_are_nobody_s() -> None:
    lost = Attempt(1, AttemptState.ENDED, "i-0123456789abcdef0", beating_at=NOON, first_step_at=NOON, last_step=7)
    run = Run("r1", Spec(("python",), ("g5.xlarge",)), NOON, status=RunStatus.WAITING, attempts=(lost,))
    woken = Heartbeat("r1", 1, 99, Phase.TRAINING, step=12, first_step=True)

    after = absorb(replace(run, heartbeats=(woken,)), NOON, Site())

    assert after.attempts[0].last_step == 7


def test_a_rollback_stands_in_the_timeline_with_its_reason() -> None:
    running = Attempt(1, AttemptState.RUNNING, "i-0123456789abcdef0", beating_at=NOON, running_at=NOON)
    run = Run("r1", Spec(("python",), ("g5.xlarge",)), NOON, status=RunStatus.RUNNING, attempts=(running,))
    commit = Commit("r1", 1, 4, 34, "m", "v", "d", 1, reason=SaveReason.REQUESTED, why="the loss is nan", back_to="1.2")

    news = absorb(replace(run, checkpoints=(Checkpoint(commit),)), NOON, Site()).news

    told = {entry.kind: entry.text for entry in news}
    assert told["rolled-back"] == "attempt 1 went back to checkpoint 1.2: the loss is nan"
    assert "1.4 committed at step 34" in told["committed"]
