"""What an attempt expects, from those before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, SaveReason
from spotrelay.core.hazard import learned, mean_life
from spotrelay.core.placement import Pool
from spotrelay.core.run import Attempt, AttemptState, Run
from tests.shim.world import RUN, new_run
from trainer_shim.environment import Identity
from trainer_shim.history import costs_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def identity(generation: int, scale: float = 1.0) -> Identity:
    return Identity(RUN, generation, "i-1", "table", "bucket", "bus", "us-east-1", scale)


def ended(generation: int, seconds: float, **given: Any) -> Attempt:
    return Attempt(
        generation,
        AttemptState.ENDED,
        running_at=NOON,
        ended_at=NOON + timedelta(seconds=seconds),
        **given,
    )


def saved(generation: int, save: int, reason: SaveReason, stall_s: float, durable_s: float) -> Checkpoint:
    made = Commit(RUN, generation, save, 1, "m", "v", "d", 1, reason=reason, stall_s=stall_s, durable_s=durable_s)
    return Checkpoint(made)


def run_with(attempts: tuple[Attempt, ...] = (), checkpoints: tuple[Checkpoint, ...] = ()) -> Run:
    return replace(new_run(), attempts=attempts, checkpoints=checkpoints)


def test_a_first_attempt_expects_what_its_family_is_supposed_to_live_and_no_notice() -> None:
    here = Attempt(1, AttemptState.RUNNING, pool=Pool("us-east-1", "us-east-1a", "p5.48xlarge"))

    costs = costs_of(run_with((here,)), identity(1))

    assert costs.hazard == learned([], mean_life("p5.48xlarge"))
    assert (costs.durable_s, costs.announced, costs.last_s) == (0.0, 0.0, 0.0)


def test_losses_that_a_last_save_preceded_count_as_announced() -> None:
    attempts = tuple(ended(n, 600.0 * n) for n in (1, 2, 3, 4))
    notices = tuple(saved(n, 9, SaveReason.NOTICE, 0.1, 4.0) for n in (1, 2, 4))

    costs = costs_of(run_with(attempts, notices), identity(5))

    assert costs.announced == pytest.approx(3 / 4.5)
    assert costs.last_s == 4.0
    assert costs.durable_s == 0.0  # a last save says nothing of the others


def test_a_crash_is_no_loss_of_a_machine() -> None:
    lost, crashed = (costs_of(run_with((ended(1, 600.0, crashed=crash),)), identity(2)) for crash in (False, True))

    assert crashed.hazard.rate(0) < lost.hazard.rate(0)


def test_the_newest_costs_of_earlier_attempts_are_expected_at_first() -> None:
    made = (saved(2, 1, SaveReason.CADENCE, 2.0, 20.0), saved(1, 7, SaveReason.CADENCE, 9.0, 90.0))

    costs = costs_of(run_with((), made), identity(3))

    assert (costs.stall_s, costs.durable_s) == (2.0, 20.0)


def test_a_demos_lives_are_counted_on_its_own_clock() -> None:
    real, scaled = (
        costs_of(run_with((ended(1, seconds),)), identity(2, scale)) for seconds, scale in ((6000.0, 1.0), (60.0, 0.01))
    )

    assert real.hazard == scaled.hazard
