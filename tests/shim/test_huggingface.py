"""A Hugging Face Trainer that is lost and resumed ends in the very bits of one that was left alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import trainer_shim
from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.errors import InvalidInput
from spotrelay.core.live import EXIT_DRAINED
from spotrelay.core.spec import Cadence
from tests.shim.test_bit_for_bit import Killed
from tests.shim.trainer_training import STEPS, build, train
from tests.shim.training import build as build_loop
from tests.shim.training import digest
from tests.shim.world import World, eventually, left_with

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two workers": {"dataloader_num_workers": 2},
    "workers that live on": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "accumulating": {"gradient_accumulation_steps": 3, "max_steps": 9},
    "evaluating": {"eval_strategy": "steps", "eval_steps": 3},
    "evaluating after epochs": {"eval_strategy": "epoch"},
    "a stream": {"stream": True},
    "in epochs": {"num_train_epochs": 3, "max_steps": -1},
}


def lost_after(world: World, steps: int, trainer: Any, generation: int = 1) -> int:
    """Train until a checkpoint of this step or an earlier one is committed, then lose the machine."""

    def after(done: int) -> None:
        if done > steps:
            flight = callback(trainer)._session._saver.flight
            if flight is not None:
                assert flight.over.wait(20)
            raise Killed

    with pytest.raises(Killed):
        train(lambda trainer: world.resume(generation, trainer), trainer, after)
    world.hand_over(generation + 1)
    return world.checkpoints[0].commit.step


def callback(trainer: Any) -> Any:
    return next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "SpotrelayCallback")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The same script outside Spotrelay."""

    def run(**arguments: Any) -> Any:
        monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
        return train(trainer_shim.resume, build(tmp_path, **arguments))

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "steps", [3, pytest.param(7, marks=pytest.mark.long)], ids=lambda steps: f"after {steps} steps"
)
def test_a_trainer_resumed_in_any_part_of_an_epoch_ends_in_the_same_bits(
    world: World, tmp_path: Path, alone: Any, kind: str, steps: int
) -> None:
    expected = alone(**KINDS[kind])
    world.submit()
    resumed_at = lost_after(world, steps, build(tmp_path, **KINDS[kind]))

    outcome = train(lambda trainer: world.resume(2, trainer), build(tmp_path, **KINDS[kind]))

    assert 0 < resumed_at <= steps
    assert outcome.losses == {step: loss for step, loss in expected.losses.items() if step > resumed_at}
    assert outcome.digest == expected.digest
    assert outcome.seen == expected.seen


@pytest.mark.parametrize(
    "steps", [10, pytest.param(20, marks=pytest.mark.long), STEPS - 1], ids=lambda steps: f"after {steps} steps"
)
@pytest.mark.parametrize("kind", ["plain", "workers that live on"])
def test_the_borders_of_epochs_are_no_different(
    world: World, tmp_path: Path, alone: Any, kind: str, steps: int
) -> None:
    expected = alone(**KINDS[kind])
    world.submit()
    lost_after(world, steps, build(tmp_path, **KINDS[kind]))

    assert train(lambda trainer: world.resume(2, trainer), build(tmp_path, **KINDS[kind])).digest == expected.digest


def test_outside_the_trainer_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    trainer = build(tmp_path)
    before = dict(vars(trainer)), list(trainer.callback_handler.callbacks)

    assert trainer_shim.resume(trainer) is False
    assert (dict(vars(trainer)), trainer.callback_handler.callbacks) == before


def test_a_first_attempt_ends_with_its_last_state_committed_and_the_trainer_as_before(
    world: World, tmp_path: Path, alone: Any
) -> None:
    expected = alone()
    world.submit(Cadence(every_steps=1000))
    trainer = build(tmp_path)

    outcome = train(lambda trainer: world.resume(1, trainer), trainer)

    assert (outcome.digest, outcome.losses) == (expected.digest, expected.losses)
    assert world.steps_committed() == [STEPS]
    assert "get_train_dataloader" not in vars(trainer)
    assert [type(c).__name__ for c in trainer.callback_handler.callbacks].count("SpotrelayCallback") == 0


def test_a_run_that_was_over_makes_no_step_more(world: World, tmp_path: Path) -> None:
    world.submit(Cadence(every_steps=1000))
    first = train(lambda trainer: world.resume(1, trainer), build(tmp_path))
    world.hand_over(2)
    steps: list[int] = []

    again = train(lambda trainer: world.resume(2, trainer), build(tmp_path), steps.append)

    assert steps == []
    assert again.digest == first.digest


def test_sigterm_drains_it_between_two_steps(world: World, tmp_path: Path, alone: Any) -> None:
    expected = alone()
    world.submit(Cadence(every_steps=1000))
    trainer = build(tmp_path)

    def tell(steps: int) -> None:
        if steps == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            eventually(lambda: callback(trainer)._session._watcher.ending, "SIGTERM was latched")

    with left_with(EXIT_DRAINED):
        train(lambda trainer: world.resume(1, trainer), trainer, tell)
    world.verify()

    outcome = train(lambda trainer: world.resume(2, trainer), build(tmp_path))

    assert (world.steps_committed()[0], world.reasons()[0]) == (6, SaveReason.NOTICE)
    assert outcome.digest == expected.digest


def test_what_cannot_be_resumed_exactly_is_refused(world: World, tmp_path: Path) -> None:
    world.submit()
    with pytest.raises(InvalidInput, match="auto_find_batch_size"):
        world.resume(1, build(tmp_path, auto_find_batch_size=True))
    with pytest.raises(InvalidInput, match=r"transformers\.Trainer"):
        world.resume(1, "trainer")


def test_a_checkpoint_of_another_model_is_refused_by_name_and_touches_nothing(world: World, tmp_path: Path) -> None:
    world.submit()
    lost_after(world, 3, build(tmp_path))
    trainer = build(tmp_path)
    trainer.model.resize_token_embeddings(300)
    before = digest(trainer.model)

    with pytest.raises(InvalidInput, match=r"wte\.weight is \(256, 16\) in the checkpoint, \(300, 16\)"):
        train(lambda trainer: world.resume(2, trainer), trainer)

    assert digest(trainer.model) == before


def test_a_checkpoint_of_a_loop_is_refused(world: World, tmp_path: Path) -> None:
    world.submit()
    run = world.attach(1, **build_loop().attached())
    run.step(1.0)
    assert run._session._saver.flight.over.wait(20)
    world.hand_over(2)

    with pytest.raises(InvalidInput, match="not written by a Trainer"):
        world.resume(2, build(tmp_path))
