"""What attempts say about themselves, taken into the run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

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
