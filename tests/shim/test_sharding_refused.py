"""Ways to shard a model that no checkpoint of ours can hold: refused by name, with the way that works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.optim import ZeroRedundancyOptimizer

from spotrelay.core.errors import InvalidInput
from tests.shim.trainer_training import build
from tests.shim.world import World


@pytest.fixture
def alone(world: World) -> Iterator[World]:
    """A process group of one, and a run."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    world.submit()
    yield world
    distributed.destroy_process_group()


def test_fsdp1_is_refused_also_when_compiled_or_inside_another_module(alone: World) -> None:
    flat = FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu"))
    for model in (flat, torch.compile(flat), nn.Sequential(flat, nn.ReLU())):
        with pytest.raises(InvalidInput, match=r"model is under FullyShardedDataParallel .*fully_shard \(FSDP2\)"):
            alone.attach(1, model=model)

    assert alone.checkpoints == ()


def test_zero_is_refused(alone: World) -> None:
    model = nn.Linear(4, 4)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.1)  # type: ignore[no-untyped-call]  # torch has no annotation

    with pytest.raises(InvalidInput, match=r"optimizer is a ZeroRedundancyOptimizer.*fully_shard \(FSDP2\)"):
        alone.attach(1, model=model, optimizer=optimizer)


SPREAD: dict[str, dict[str, Any]] = {
    "DeepSpeed": {"is_deepspeed_enabled": True},
    "FSDP": {"is_fsdp_enabled": True},
    "tensor parallelism": {"get_tp_size": lambda: 2},
    "DistributedConfig": {"is_distributed_loading_by_transformers": True},
}


@pytest.mark.parametrize("by", SPREAD)
def test_a_trainer_that_spreads_its_model_is_refused_and_told_of_another_way(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    world.submit()
    trainer = build(tmp_path)
    for name, value in SPREAD[by].items():
        monkeypatch.setattr(trainer, name, value)

    with pytest.raises(
        InvalidInput, match=rf"spread by {by} cannot be resumed: .*DistributedDataParallel.*fully_shard"
    ):
        world.resume(1, trainer)
