"""A training script in small, with everything that a lazy resume forgets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

STEPS = 30
SAMPLES = 38  # ten batches in an epoch


class Jittered(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Samples augmented from all three random generators of whoever loads them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(8) + random.random() + float(numpy.random.rand())
        return noise + index, torch.tensor(index % 3)


@dataclass
class Parts:
    """What a script attaches."""

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: DataLoader[Any]

    def attached(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "loader": self.loader,
        }


@dataclass
class Outcome:
    """What a script leaves behind."""

    losses: dict[int, float] = field(default_factory=dict)
    digest: str = ""
    seen: list[int] = field(default_factory=list)


def build(workers: int = 0, persistent: bool = False, generator: bool = False, width: int = 16) -> Parts:
    """Everything, from fixed seeds."""
    torch.manual_seed(3)
    random.seed(4)
    numpy.random.seed(5)
    model = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    loader = DataLoader(
        Jittered(),
        batch_size=4,
        shuffle=True,
        num_workers=workers,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(1) if generator else None,
    )
    return Parts(model, optimizer, scheduler, loader)


def digest(model: nn.Module) -> str:
    """Of every tensor of the model."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def train(
    attach: Callable[..., Any],
    parts: Parts,
    total: int = STEPS,
    after: Callable[[Any, int], None] = lambda run, steps: None,
) -> Outcome:
    """The loop of the script; `after` is called at the very end of each step's body."""
    extra: dict[str, Any] = {"seen": []}
    run = attach(**parts.attached(), extra=extra)
    outcome = Outcome()
    for step, (inputs, wanted) in run.steps(total=total):
        loss = nn.functional.cross_entropy(parts.model(inputs), wanted)
        parts.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        parts.optimizer.step()
        run.step(loss)
        parts.scheduler.step()  # after step(): still part of the step
        extra["seen"].append(step)
        outcome.losses[step] = loss.item()
        after(run, step + 1)
    run.close()
    outcome.digest = digest(parts.model)
    outcome.seen = extra["seen"]
    return outcome
