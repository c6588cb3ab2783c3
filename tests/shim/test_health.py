"""The health gate."""

from __future__ import annotations

import math
import random

import pytest

from spotrelay.core.checkpoint import Health
from spotrelay.core.health import Judgement, LossBand, joined


def band(losses: list[float]) -> LossBand:
    made = LossBand()
    for step, loss in enumerate(losses):
        made.see(step, loss)
    return made


def noisy(count: int) -> list[float]:
    source = random.Random(5)
    return [3.0 - 0.01 * n + source.gauss(0, 0.1) for n in range(count)]


def test_a_run_that_learns_is_healthy_at_every_step() -> None:
    losses = noisy(200)

    assert all(band(losses[:n]).judge().health is Health.HEALTHY for n in range(len(losses)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_bad_and_named(bad: float) -> None:
    judgement = band([*noisy(50), bad]).judge()

    assert judgement.health is Health.BAD
    assert "step 50" in judgement.reason


def test_a_lasting_jump_is_suspect_and_a_single_bad_batch_is_not() -> None:
    assert band([*noisy(100), 9.0]).judge().health is Health.HEALTHY
    assert band([*noisy(100), 9.0, 9.1, 9.2]).judge().health is Health.SUSPECT


def test_a_finite_loss_after_a_skipped_bad_one_is_not_bad() -> None:
    assert band([*noisy(50), math.nan, 2.5]).judge().health is Health.HEALTHY


def test_few_losses_make_no_band() -> None:
    assert band([1.0, 1.0, 50.0, 50.0, 50.0]).judge().health is Health.HEALTHY


def test_arrays_that_are_not_finite_make_the_state_bad() -> None:
    verdict = joined(Judgement(Health.HEALTHY), ("a", "b", "c", "d", "e"))

    assert verdict == Judgement(Health.BAD, "not finite: a, b, c and 2 more")
    assert joined(Judgement(Health.SUSPECT, "why"), ()) == Judgement(Health.SUSPECT, "why")
