"""Compiled modules, gradients that are accumulated, and the `with` form: interrupted, they end in the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trainer_shim
from spotrelay.core.checkpoint import decode_manifest
from tests.shim.test_bit_for_bit import Killed
from tests.shim.training import build, digest
from tests.shim.world import World

TOTAL = 22
PENDING = 4  # batches to one step of the optimizer


class Compiled:
    """One part of the model compiled, and all of it again."""

    def __init__(self) -> None:
        self.parts = build()
        self.parts.model[0] = torch.compile(self.parts.model[0], backend="aot_eager")
        self.model: Any = torch.compile(self.parts.model, backend="aot_eager")
        self.attached = {**self.parts.attached(), "model": self.model}

    def step(self, number: int, batch: Any) -> tuple[Any, bool]:
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.parts.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        self.parts.optimizer.step()
        return loss, False


class Accumulating(Compiled):
    """Several batches to one step of the optimizer, in mixed precision with a scaler."""

    def __init__(self) -> None:
        self.parts = build()
        self.model = self.parts.model
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        self.attached = {**self.parts.attached(), "scaler": self.scaler}

    def step(self, number: int, batch: Any) -> tuple[Any, bool]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(self.model(batch[0]).float(), batch[1]) / PENDING
        self.scaler.scale(loss).backward()
        pending = (number + 1) % PENDING != 0
        if not pending:
            self.scaler.step(self.parts.optimizer)
            self.scaler.update()
            self.parts.optimizer.zero_grad()
            self.parts.scheduler.step()
        return loss, pending


def script(
    attach: Callable[..., Any], made: Compiled, after: Callable[[Any, int], None] = lambda run, steps: None
) -> tuple[str, dict[int, float]]:
    """The loop in its `with` form; the digest of the weights and every loss."""
    losses = {}
    with attach(**made.attached) as run:
        for number, batch in run.steps(total=TOTAL):
            loss, pending = made.step(number, batch)
            losses[number] = loss.item()
            run.step(loss, accumulating=pending)
            after(run, number + 1)
    return digest(made.model), losses


def interrupted(world: World, make: type[Compiled], steps: int) -> int:
    """Lose the machine after so many steps, whatever is committed then; the step to resume from."""

    def after(run: Any, done: int) -> None:
        if done > steps:
            flight = run._session._saver.flight
            if flight is not None:
                assert flight.over.wait(20)
            raise Killed

    world.submit()
    with pytest.raises(Killed):
        script(lambda **given: world.attach(1, **given), make(), after)
    world.hand_over(2)
    return world.checkpoints[0].commit.step


@pytest.mark.parametrize(
    ("make", "steps", "from_step"), [(Compiled, 6, range(1, 7)), (Accumulating, 14, [4, 8, 12])], ids=str
)
def test_it_ends_in_the_same_bits(
    world: World, monkeypatch: pytest.MonkeyPatch, make: type[Compiled], steps: int, from_step: Any
) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    expected, losses = script(trainer_shim.attach, make())
    resumed_at = interrupted(world, make, steps)

    found, again = script(lambda **given: world.attach(2, **given), make())

    assert resumed_at in from_step
    assert again == {number: loss for number, loss in losses.items() if number >= resumed_at}
    assert found == expected


def test_a_compiled_model_is_saved_under_the_names_that_it_has_uncompiled(world: World) -> None:
    interrupted(world, Compiled, 3)
    commit = world.checkpoints[0].commit
    manifest = decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))
    plain = build()

    run = world.attach(2, **plain.attached())

    assert set(manifest.tree["state"]["models"]["model"]) == set(plain.model.state_dict())
    assert run.resumed_from == commit.step
