"""A resumed run computes, bit for bit, what an uninterrupted one would have computed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

import trainer_shim
from spotrelay.core.errors import InvalidInput
from tests.shim.training import STEPS, Jittered, Outcome, Parts, build, train
from tests.shim.world import World

KINDS: dict[str, dict[str, Any]] = {
    "in the process": {},
    "with a generator of its own": {"generator": True},
    "with two workers": {"workers": 2},
    "with two workers and a generator": {"workers": 2, "generator": True},
    "with workers that live on": {"workers": 2, "persistent": True},
    "with workers that live on and a generator": {"workers": 2, "persistent": True, "generator": True},
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the script runs after it."""


def uninterrupted(parts: Parts, monkeypatch: pytest.MonkeyPatch, total: int = STEPS) -> Outcome:
    """The same script outside Spotrelay."""
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    return train(trainer_shim.attach, parts, total)


def lost_after(world: World, steps: int, parts: Parts, generation: int = 1, total: int = STEPS) -> int:
    """Train until this many steps are done and committed, then lose the machine; the step to resume from."""

    def after(run: Any, done: int) -> None:
        if done > steps:
            flight = run._session._saver.flight
            if flight is not None:
                assert flight.over.wait(20)
            raise Killed

    with pytest.raises(Killed):
        train(lambda **given: world.attach(generation, **given), parts, total, after)
    world.hand_over(generation + 1)
    return world.checkpoints[0].commit.step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [3, 10, 14, 20], ids=lambda steps: f"after {steps} steps")
def test_a_run_resumed_in_any_part_of_an_epoch_ends_in_the_same_bits(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, steps: int
) -> None:
    expected = uninterrupted(build(**KINDS[kind]), monkeypatch)
    world.submit()
    resumed_at = lost_after(world, steps, build(**KINDS[kind]))

    outcome = train(lambda **given: world.attach(2, **given), build(**KINDS[kind]))

    assert 0 < resumed_at <= steps
    assert outcome.losses == {step: loss for step, loss in expected.losses.items() if step >= resumed_at}
    assert outcome.digest == expected.digest
    assert outcome.seen == list(range(STEPS))


def test_a_run_lost_again_and_again_ends_in_the_same_bits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = uninterrupted(build(workers=2), monkeypatch)
    world.submit()
    for generation, steps in enumerate((2, 7, 12, 13, 25), start=1):
        lost_after(world, steps, build(workers=2), generation)

    outcome = train(lambda **given: world.attach(6, **given), build(workers=2))

    assert outcome.digest == expected.digest


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """A data set that can only be read from its beginning."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in range(20):
            yield torch.randn(8) + random.random(), torch.tensor(index % 3)


def with_loader(loader: Any) -> Parts:
    parts = build()
    parts.loader = loader
    return parts


class Moody(Jittered):
    """A data set with a random generator of its own."""

    def __init__(self) -> None:
        self.mood = random.Random(6)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, wanted = super().__getitem__(index)
        return inputs * self.mood.random(), wanted


LOADERS: dict[str, Any] = {
    "a stream": lambda: DataLoader(Stream(), batch_size=4),
    "a stream in a worker": lambda: DataLoader(Stream(), batch_size=4, num_workers=1),
    "a list of batches": lambda: [(torch.full((4, 8), float(n)), torch.tensor([0, 1, 2, 0])) for n in range(7)],
    "a data set with its own generator": lambda: DataLoader(Moody(), batch_size=4, shuffle=True),
    "weighted samples": lambda: DataLoader(
        Jittered(),
        batch_size=4,
        num_workers=2,
        sampler=WeightedRandomSampler([1.0 + n % 5 for n in range(38)], 36, generator=torch.Generator().manual_seed(8)),
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_other_kinds_of_data_are_continued_exactly_too(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = uninterrupted(with_loader(LOADERS[name]()), monkeypatch)
    world.submit()
    lost_after(world, 17, with_loader(LOADERS[name]()))

    outcome = train(lambda **given: world.attach(2, **given), with_loader(LOADERS[name]()))

    assert outcome.digest == expected.digest


class Remembering:
    """A loader that saves its own position, as torchdata's does."""

    def __init__(self) -> None:
        self.at = 0
        self.read = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while self.at < 12:
            self.at += 1
            self.read += 1
            yield torch.full((4, 8), float(self.at)), torch.tensor([0, 1, 2, 0])
        self.at = 0


def test_a_loader_that_saves_itself_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = uninterrupted(with_loader(Remembering()), monkeypatch)
    world.submit()
    resumed_at = lost_after(world, 17, with_loader(Remembering()))
    loader = Remembering()

    outcome = train(lambda **given: world.attach(2, **given), with_loader(loader))

    assert outcome.digest == expected.digest
    assert loader.read == STEPS - resumed_at


def test_a_run_is_told_where_it_stands(world: World) -> None:
    world.submit()
    resumed_at = lost_after(world, 5, build())

    run = world.attach(2, **build().attached(), extra={"seen": []})

    assert (run.id, run.generation, run.resumed_from, run.step_number) == ("run-1", 2, resumed_at, resumed_at)
    assert run.extra["seen"] == list(range(resumed_at))


def test_a_loader_of_another_kind_is_refused(world: World) -> None:
    world.submit()
    lost_after(world, 4, build())

    with pytest.raises(InvalidInput, match="a dataloader loader, and this one is replayed"):
        train(lambda **given: world.attach(2, **given), with_loader([(torch.zeros(4, 8), torch.tensor([0, 1, 2, 0]))]))


def test_a_loader_that_was_changed_is_told_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.submit()
    lost_after(world, 4, build())
    parts = build()
    parts.loader = DataLoader(Jittered(), batch_size=2, shuffle=True)

    with caplog.at_level("INFO"):
        train(lambda **given: world.attach(2, **given), parts)

    assert "batch_size 4 → 2" in caplog.text
