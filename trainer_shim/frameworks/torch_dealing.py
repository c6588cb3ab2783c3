"""An epoch that one number of ranks began and another one finishes: no sample is lost, none is dealt out twice.

torch's DistributedSampler gives rank r of n every n-th sample of one order that all ranks know. After k samples
on each rank, the first k * n of that order are done, so the rest can be dealt out to any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import distributed
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler


def dealing(loader: Any) -> dict[str, int]:
    """To how many ranks a loader's samples are dealt out; empty for a process by itself."""
    replicas = getattr(getattr(loader, "sampler", None), "num_replicas", None)
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    return {**({} if replicas is None else {"replicas": replicas}), **({} if world == 1 else {"ranks": world})}


def can_deal(was: dict[str, Any], loader: Any) -> bool:
    """Whether what is left of an epoch can be dealt out anew."""
    if "replicas" not in was or not isinstance(loader, DataLoader):
        return False
    return type(loader.sampler) is DistributedSampler and type(loader.batch_sampler) in (BatchSampler, type(None))


def samples_done(form: dict[str, Any], batches: int) -> int:
    """By all ranks together, when each has finished this many batches."""
    return int(form["replicas"]) * batches * int(form.get("batch_size") or 1)


class Rest:
    """What a loader's index sampler gives once the first samples of the epoch are done."""

    def __init__(self, loader: DataLoader[Any], done: int) -> None:
        self._loader = loader
        self._done = done

    def __iter__(self) -> Iterator[Any]:
        mine = self._mine()
        size = self._loader.batch_size
        return iter(mine) if size is None else iter(BatchSampler(mine, size, self._loader.drop_last))

    def __len__(self) -> int:
        count, size = len(self._mine()), self._loader.batch_size or 1
        return count // size if self._loader.drop_last else math.ceil(count / size)

    def _mine(self) -> list[int]:
        sampler = self._loader.sampler
        assert isinstance(sampler, DistributedSampler)
        whole: DistributedSampler[Any] = DistributedSampler(
            sampler.dataset, num_replicas=1, rank=0, shuffle=sampler.shuffle, seed=sampler.seed
        )
        whole.set_epoch(sampler.epoch)
        left = list(whole)[self._done :]
        ranks = sampler.num_replicas
        if sampler.drop_last:
            left = left[: len(left) // ranks * ranks]
        elif left:
            left += (left * ranks)[: -len(left) % ranks]
        return left[sampler.rank :: ranks]
