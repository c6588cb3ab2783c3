"""A process that restores a checkpoint of 180 MB, and prints how much memory that took beyond what it left behind."""

from __future__ import annotations

import ctypes
import gc
import json
from pathlib import Path

import pytest
import torch

from tests.shim.harm import Scene
from tests.shim.world import World, eventually
from trainer_shim.frameworks.torch import TorchFramework

WIDTH = 1900  # four square layers of it, and two moments for each


def parts() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)))
    return model, torch.optim.AdamW(model.parameters())


def occupied(what: str) -> int:
    """Bytes of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def saved() -> Scene:
    """A bucket with such a checkpoint; what is in it is outside of the measurement."""
    world = World(pytest.MonkeyPatch())
    world.submit()
    model, optimizer = parts()
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    run = world.attach(1, model=model, optimizer=optimizer)
    for number in (1, 2):
        run.step(0.5)
        eventually(lambda n=number: len(world.checkpoints) == n, "it is committed", 60.0)
        run._session._collect()
    world.hand_over(2)
    world.close()
    return Scene(world, *world.checkpoints[:2])


def main() -> None:
    scene = saved()
    model, optimizer = parts()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    scene.resume(TorchFramework(model, optimizer, None, None, None))
    most = occupied("VmHWM")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    size = 3 * sum(each.nbytes for each in model.parameters())
    print(json.dumps({"extra": (most - occupied("VmRSS")) / size, "size": size}))


if __name__ == "__main__":
    main()
