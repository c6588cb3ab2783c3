"""The processes that train one model together, and what a session needs of them.

Values travel as JSON, never as pickles. A rank that has left, or died, ends every wait for it with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from spotrelay.core.errors import InvalidInput

Numbers = list[int]


class Parted(Exception):
    """Another rank has left, or cannot be heard: nothing can be agreed on any more. Leave as well."""


class Ranks(Protocol):
    """All ranks of one attempt, seen from one of them. Every rank makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process's number; 0 holds the lease, beats and commits."""
        ...

    @property
    def size(self) -> int:
        """How many there are: the world size."""
        ...

    @property
    def watches(self) -> bool:
        """Whether this rank asks its machine's metadata service; one on each machine does."""
        ...

    def compare(self, numbers: Numbers) -> Callable[[float], Numbers]:
        """Begin to find the largest of each number over all ranks; returns at once.

        Returns:
            A function that waits this many seconds at most for the answer; it raises Parted.
        """
        ...

    def gather(self, value: Any, within_s: float) -> list[Any]:
        """Every rank's value, by rank.

        Raises:
            Parted: another rank has left, or was not heard in time.
        """
        ...

    def beside(self) -> Ranks:
        """The same ranks over connections of their own, for one other thread. Every rank has to call it."""
        ...


class Alone:
    """A process that trains by itself."""

    rank = 0
    size = 1
    watches = True

    def compare(self, numbers: Numbers) -> Callable[[float], Numbers]:
        """See `Ranks.compare`."""
        return lambda within_s: numbers

    def gather(self, value: Any, within_s: float) -> list[Any]:
        """See `Ranks.gather`."""
        return [value]

    def beside(self) -> Ranks:
        """See `Ranks.beside`."""
        return self


def expect(ranks: Ranks, nodes: int) -> Ranks:
    """These ranks, if they may be on as many machines as the attempt has.

    Raises:
        InvalidInput: they are too few; this machine would train by itself, beside the others.
    """
    if ranks.size < nodes:
        raise InvalidInput(
            f"the run has {nodes} machines, and this process knows of {ranks.size} rank in all: start it by torchrun, "
            "call torch.distributed.init_process_group() before attach(), or leave nodes out of the spec"
        )
    return ranks


def by_rank(texts: Sequence[str]) -> str:
    """What several ranks have to say, each with its number; empty when none has anything."""
    return "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(texts) if text)
