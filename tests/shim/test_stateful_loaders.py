"""torchdata's loader, which saves its own position: shuffled, with workers, over data sets that save themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.shim.test_bit_for_bit import lost_after, uninterrupted, with_loader
from tests.shim.training import STEPS, Jittered, Parts, train
from tests.shim.world import World


class Plain(Jittered):
    """The samples without any chance in them."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((8,), float(index)), torch.tensor(index % 3)


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Each worker's own part, with a generator of its own, both of which it saves."""

    def __init__(self) -> None:
        self.at = 0
        self.random = random.Random(11)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        while self.at < 20:
            self.at += 1
            number = self.at if worker is None else self.at * 10 + worker.id
            yield torch.full((8,), number + self.random.random()), torch.tensor(number % 3)
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "random": self.random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]
        version, words, gauss = state["random"]
        self.random.setstate((version, tuple(words), gauss))


LOADERS: dict[str, Any] = {
    "in the process": lambda: StatefulDataLoader(Jittered(), batch_size=4, shuffle=True),
    "with a generator": lambda: StatefulDataLoader(
        Jittered(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)
    ),
    "with workers": lambda: StatefulDataLoader(Plain(), batch_size=4, shuffle=True, num_workers=2),
    "with workers that draw": lambda: StatefulDataLoader(Jittered(), batch_size=4, shuffle=True, num_workers=2),
    "with workers that draw and live on": lambda: StatefulDataLoader(
        Jittered(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "a stream": lambda: StatefulDataLoader(Stream(), batch_size=4),
    "a stream in workers": lambda: StatefulDataLoader(Stream(), batch_size=4, num_workers=2),
    "a stream in workers that live on": lambda: StatefulDataLoader(
        Stream(), batch_size=4, num_workers=2, persistent_workers=True
    ),
}


def parts(kind: str) -> Parts:
    made = with_loader(None)
    made.loader = LOADERS[kind]()
    return made


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    "steps", [3, 10, pytest.param(14, marks=pytest.mark.long)], ids=lambda steps: f"after {steps} steps"
)
def test_it_goes_on_at_the_very_sample(world: World, monkeypatch: pytest.MonkeyPatch, kind: str, steps: int) -> None:
    expected = uninterrupted(parts(kind), monkeypatch)
    world.submit()
    resumed_at = lost_after(world, steps, parts(kind))

    outcome = train(lambda **given: world.attach(2, **given), parts(kind))

    assert outcome.losses == {step: loss for step, loss in expected.losses.items() if step >= resumed_at}
    assert outcome.digest == expected.digest
    assert outcome.seen == list(range(STEPS))
