"""The processes that train together: what they tell each other, and how they fail together.

Everything travels as JSON over a gloo group of its own, so that nothing is unpickled and no collective of the
training is met.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from spotrelay.core import errors
from spotrelay.core.errors import SpotrelayError

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # rank 0 may wait long for the lease; when it dies the others hear of it at once


class Ranks:
    """This process among those of a group; alone where torch.distributed is not initialised.

    Made by every process of the group at the same time.
    """

    def __init__(self, group: Any = None) -> None:
        self.rank, self.size = 0, 1
        self._group: Any = None
        if dist.is_available() and dist.is_initialized():
            members = dist.get_process_group_ranks(group) if group is not None else None
            self._group = dist.new_group(
                members, timeout=PATIENCE, backend="gloo", use_local_synchronization=members is not None
            )
            self.rank, self.size = dist.get_rank(self._group), dist.get_world_size(self._group)

    def gather(self, value: Any) -> list[Any]:
        """What every process gave, in the order of their ranks. All of them call it."""
        if self.size == 1:
            return [value]
        body = json.dumps(value).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(body)]), group=self._group)
        longest = max(int(each) for each in lengths)
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(body)] = torch.frombuffer(bytearray(body), dtype=torch.uint8)
        bodies = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(bodies, mine, group=self._group)
        return [
            json.loads(bytes(each[: int(length)].numpy().tobytes()))
            for each, length in zip(bodies, lengths, strict=True)
        ]

    def agree(self, work: Callable[[], T]) -> T:
        """What `work` gives, if it succeeded in every process; otherwise all of them fail.

        Raises:
            SpotrelayError: this process's own failure, or else the first of another's, of the same class.
        """
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again once the others know of it
            failure = error
        problems = self.gather(None if failure is None else [type(failure).__name__, str(failure)])
        if failure is not None:
            raise failure
        for rank, problem in enumerate(problems):
            if problem is not None:
                raise _rebuilt(problem[0], f"rank {rank}: {problem[1]}")
        return result  # type: ignore[return-value]  # nothing failed, so it is what work gave

    def from_first(self, work: Callable[[], Any]) -> Any:
        """What `work` gives on rank 0, told to all; its failure is everybody's."""
        told: Any = None

        def first() -> Any:
            return work() if self.rank == 0 else None

        told = self.agree(first)
        return self.gather(told)[0]


def _rebuilt(name: str, text: str) -> SpotrelayError:
    kind = getattr(errors, name, SpotrelayError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, SpotrelayError) else SpotrelayError(text)
