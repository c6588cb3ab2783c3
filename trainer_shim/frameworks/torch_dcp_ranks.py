"""How ranks that call torch.distributed.checkpoint themselves succeed or fail together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from spotrelay.core import errors
from spotrelay.core.errors import SpotrelayError
from trainer_shim.ranks import Ranks
from trainer_shim.team import LEADING_S

T = TypeVar("T")


class Accord:
    """This process among all ranks. Every one of them makes the same calls in the same order."""

    def __init__(self, ranks: Ranks) -> None:
        self.rank = ranks.rank
        self.size = ranks.size
        self.watches = ranks.watches
        self._ranks = ranks

    def gather(self, value: Any) -> list[Any]:
        """What every process gave, in the order of their ranks."""
        return self._ranks.gather(value, LEADING_S)  # rank 0 may wait long for the lease

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
        told = self.agree(lambda: work() if self.rank == 0 else None)
        return self.gather(told)[0]


def _rebuilt(name: str, text: str) -> SpotrelayError:
    kind = getattr(errors, name, SpotrelayError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, SpotrelayError) else SpotrelayError(text)
