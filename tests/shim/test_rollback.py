"""What the health gate makes of a running attempt: verdicts, promotions, and the way back after a divergence."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from spotrelay.core.checkpoint import (
    CheckpointId,
    Commit,
    Health,
    Manifest,
    Rollback,
    SaveReason,
    decode_manifest,
    resume_candidate,
)
from spotrelay.core.errors import InvalidInput, Unavailable
from spotrelay.core.spec import HealthRules
from tests.shim.training import Parts, build
from tests.shim.world import RUN, World, eventually, left_with
from trainer_shim import checking, wiring
from trainer_shim.frameworks.torch import TorchFramework
from trainer_shim.vitals import Vitals

TOTAL = 60


def with_rules(world: World, **rules: Any) -> None:
    world.submit()
    spec = world.store.load(RUN).spec
    world.change(spec=replace(spec, cadence=replace(spec.cadence, every_steps=5), health=HealthRules(**rules)))


def manifest_of(world: World, step: int) -> Manifest:
    commit = next(c.commit for c in world.checkpoints if c.commit.step == step)
    return decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))


def train(
    world: World,
    parts: Parts,
    during: Callable[[Any, int], Any] = lambda run, step: None,
    generation: int = 1,
    total: int = TOTAL,
    **attached: Any,
) -> list[int]:
    """The steps that the final state remembers. `during` is called before each loss is told and may change it."""
    extra: dict[str, Any] = {"seen": []}
    run = world.attach(generation, **parts.attached(), extra=extra, **attached)
    for step, (inputs, wanted) in run.steps(total=total):
        loss = nn.functional.cross_entropy(parts.model(inputs), wanted)
        parts.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        parts.optimizer.step()
        told = during(run, step + 1)
        run.step(loss if told is None else told)
        extra["seen"].append(step)
        settle(run)
        world.verify()
    run.close()
    world.verify()
    return list(extra["seen"])


def settle(run: Any) -> None:
    """Let the save under way be over, so that each test sees the same checkpoints."""
    flight = run._session._saver.flight
    assert flight is None or flight.over.wait(10)


def promoted(world: World) -> list[int]:
    return sorted(c.commit.step for c in world.checkpoints if c.promoted)


def poison(parts: Parts) -> None:
    with torch.no_grad():
        parts.model[0].weight.fill_(math.nan)  # type: ignore[operator]  # a Linear's


def spoiling(world: World, parts: Parts, at: tuple[int, ...] = (31,)) -> Callable[[Any, int], None]:
    """Make the parameters useless at these steps, once a checkpoint was promoted."""

    def during(run: Any, step: int) -> None:
        if step in at:
            eventually(lambda: promoted(world), "a checkpoint was promoted")
            poison(parts)

    return during


# promotion


def test_checkpoints_are_promoted_beside_the_training_and_the_last_one_is_not(world: World) -> None:
    with_rules(world)
    train(
        world,
        build(),
        lambda run, step: step == 41 and eventually(lambda: promoted(world), "one was promoted") and None,
    )

    assert max(promoted(world)) <= TOTAL - 10
    assert resume_candidate(world.checkpoints).commit.step == TOTAL  # type: ignore[union-attr]  # there is one


def test_a_promotion_that_fails_is_sent_again_with_a_later_heartbeat(world: World) -> None:
    failures = [Unavailable("throttled"), Unavailable("throttled")]

    class Flaky:
        def promote(self, *given: Any) -> None:
            if failures:
                raise failures.pop()
            world.store.promote(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

    with_rules(world)
    world.ports = wiring.Ports(Flaky(), world.objects, world.publisher)
    train(
        world,
        build(),
        lambda run, step: step == 41 and eventually(lambda: promoted(world), "one was promoted") and None,
    )

    assert not failures


# verdicts


def test_a_scripts_own_check_is_in_the_manifest_and_the_commit(world: World) -> None:
    answers = {5: None, 10: "the routers collapsed", 15: "bad: nothing learnt", 20: False}
    with_rules(world)

    train(world, build(), total=20, check=lambda step: answers.get(step))

    found = {c.commit.step: c.commit for c in world.checkpoints}
    assert [found[step].health for step in (5, 10, 15, 20)] == [
        Health.HEALTHY,
        Health.SUSPECT,
        Health.BAD,
        Health.SUSPECT,
    ]
    assert "routers" in manifest_of(world, 10).why and "routers" in found[10].why
    assert manifest_of(world, 5).why == ""


def test_a_check_that_fails_or_hangs_makes_the_state_suspect_and_training_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()

    def check(step: int) -> None:
        if step == 5:
            raise ZeroDivisionError("no samples")
        never.wait()

    monkeypatch.setattr(checking.Check.__init__, "__defaults__", (0.2,))
    with_rules(world)
    train(world, build(), total=15, check=check)
    never.set()

    assert [c.commit.health for c in world.checkpoints] == [Health.SUSPECT] * 3
    assert "ZeroDivisionError: no samples" in manifest_of(world, 5).why
    assert "no answer within 0.2 s" in manifest_of(world, 10).why
    assert "earlier call" in manifest_of(world, 15).why


def test_gradients_that_are_not_finite_beside_finite_parameters_are_suspect(world: World) -> None:
    parts = build()

    def during(run: Any, step: int) -> None:
        if step == 10:
            parts.model[4].bias.grad.fill_(math.inf)  # type: ignore[union-attr, operator]  # a Linear's

    with_rules(world)
    train(world, parts, during, total=15)

    assert [c.commit.health for c in reversed(world.checkpoints)] == [Health.HEALTHY, Health.SUSPECT, Health.HEALTHY]
    assert manifest_of(world, 10).why == "gradients are not finite: model: 4.bias"


def test_a_norm_that_the_script_tells_is_judged_at_every_step(world: World) -> None:
    with_rules(world)
    run = world.attach(1, **build().attached())
    for step, _ in run.steps(total=5):
        run.step(1.0, grad_norm=math.inf if step == 4 else torch.tensor(0.5))

    assert manifest_of(world, 5).health is Health.SUSPECT
    assert manifest_of(world, 5).why == "the norm of the gradients of step 5 is inf"


# rollback


def test_a_diverged_run_goes_back_to_the_promoted_checkpoint_and_skips_the_data(world: World) -> None:
    with_rules(world, rollback=True, bad_steps=3)
    parts = build()

    seen = train(world, parts, spoiling(world, parts))

    # The loss of step 32 is the first that is not finite; after step 34 there were three.
    [rollback] = manifest_of(world, TOTAL).rollbacks
    assert rollback.step == 34
    assert rollback.to_step in promoted(world) and rollback.to_step <= 20
    assert seen == [*range(rollback.to_step), *range(34, TOTAL)]
    assert all(bool(torch.isfinite(each).all()) for each in parts.model.parameters())
    after = next(c.commit for c in world.checkpoints if c.commit.step == 34)
    assert (after.reason, after.back_to) == (SaveReason.REQUESTED, rollback.checkpoint)
    assert "not finite" not in after.why and "nan" in after.why
    assert "rolled-back" in [each["what"] for each in world.publisher.of("Attempt Reported")]
    assert after.health is Health.HEALTHY


def test_what_was_taken_before_a_rollback_and_is_committed_after_it_changes_nothing() -> None:
    def taken(save: int, step: int, back_to: str = "") -> Commit:
        return Commit(RUN, 1, save, step, "key", "version", "digest", 1, back_to=back_to)

    vitals = Vitals()
    manifest = Manifest(RUN, 1, 1, 10, (), {})
    vitals.rolled_back(Rollback(40, 10, "1.1", "the loss is nan"), manifest)

    assert vitals.committed(taken(2, 25)) is None
    assert vitals.back_to == "1.1"
    assert vitals.committed(taken(3, 40, "1.1")) is None
    assert vitals.back_to == ""
    assert vitals.committed(taken(4, 50)) == CheckpointId(1, 3)


def test_without_the_spec_saying_so_nothing_is_rolled_back(world: World) -> None:
    with_rules(world, bad_steps=3)
    parts = build()

    seen = train(world, parts, spoiling(world, parts))

    assert seen == list(range(TOTAL))
    assert {c.commit.health for c in world.checkpoints if c.commit.step > 31} == {Health.BAD}


def test_a_loss_that_stays_outside_its_band_is_a_divergence_too(world: World) -> None:
    with_rules(world, rollback=True, suspect_steps=4)

    def during(run: Any, step: int) -> float:
        if step == 41:
            eventually(lambda: promoted(world), "a checkpoint was promoted")
        return 50.0 if 41 <= step <= 48 else 1.0 + 0.01 * (step % 3)

    train(world, build(), during)

    [rollback] = manifest_of(world, TOTAL).rollbacks
    assert 41 + 4 < rollback.step <= 48
    assert rollback.to_step < 41
    left = [c.commit.step for c in world.checkpoints if rollback.to_step < c.commit.step < rollback.step]
    candidate = resume_candidate(tuple(c for c in world.checkpoints if c.commit.step <= rollback.step))
    assert left and candidate is not None and candidate.commit.step == rollback.step


def test_too_many_rollbacks_end_the_attempt_and_the_next_one_remembers(world: World) -> None:
    with_rules(world, rollback=True, bad_steps=1, max_rollbacks=2)
    parts = build()

    with left_with(1):
        train(world, parts, spoiling(world, parts, at=(31, 36, 41)))

    world.hand_over(2)
    again = build()
    resumed = next(iter(sorted(world.checkpoints, key=lambda c: c.id)[-1:])).commit
    with left_with(1):
        train(world, again, lambda run, step: poison(again) if step == resumed.step + 3 else None, 2)
    assert len(manifest_of(world, resumed.step).rollbacks) == 2


def test_a_run_without_a_promoted_checkpoint_says_so_and_goes_on(world: World, capsys: Any) -> None:
    with_rules(world, rollback=True, bad_steps=1)
    parts = build()

    seen = train(world, parts, lambda run, step: poison(parts) if step == 3 else None, total=12)

    assert seen == list(range(12))
    assert manifest_of(world, 10).rollbacks == ()


def test_a_rollback_is_refused_by_name_where_the_loop_is_not_the_scripts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchFramework, "rolls_back", False)
    with_rules(world, rollback=True)

    with pytest.raises(InvalidInput, match=r"health\.rollback is for training loops of your own"):
        world.attach(1, **build().attached())


def test_the_band_of_losses_is_taken_along_by_a_resume(world: World) -> None:
    with_rules(world)
    train(world, build(), lambda run, step: 1.0 + 0.01 * (step % 3), total=40)
    world.hand_over(2)

    train(world, build(), lambda run, step: 50.0, 2, total=50)

    assert manifest_of(world, 45).health is Health.SUSPECT
    assert manifest_of(world, 45).rollbacks == tuple[Rollback, ...]()


def test_a_look_at_the_gradients_that_costs_more_than_a_hundredth_of_a_step_is_not_taken_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look(self: TorchFramework) -> str:
        looks.append(1)
        threading.Event().wait(0.2)
        return ""

    monkeypatch.setattr(TorchFramework, "bad_gradients", look)
    with_rules(world)
    train(world, build(), total=20)

    assert len(looks) == 1
