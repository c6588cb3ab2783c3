"""What the ranks of an attempt do as one before and after the training: be led, compare notes, and leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import Damaged, Fenced
from trainer_shim.agreement import PATIENCE_S
from trainer_shim.entry import Ended, NothingToResume
from trainer_shim.ranks import Parted, Ranks, by_rank

T = TypeVar("T")

LEADING_S = 86_400.0  # rank 0 may wait long for the lease; if it dies, the others hear of it at once
FAREWELL_S = 10.0  # for the others to come to the same end
ENDINGS: dict[str, type[Exception]] = {each.__name__: each for each in (Fenced, Ended, NothingToResume)}


class Team:
    """One rank among all; by itself where there is only one."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.rank = ranks.rank
        self.size = ranks.size
        self.leads = ranks.rank == 0

    def led(self, kind: type[T], work: Callable[[], T | None]) -> T | None:
        """What rank 0's `work` returns, on every rank; the same ending where it raises one.

        Raises:
            Fenced, Ended, NothingToResume: as `work` did on rank 0.
            Parted: it failed in another way.
        """
        if self.size == 1:
            return work()
        if not self.leads:
            return self._followed(kind)
        try:
            found = work()
        except Exception as error:
            self.ranks.gather({"ending": type(error).__name__, "text": str(error)}, LEADING_S)
            raise
        self.ranks.gather({"value": to_json(found)}, LEADING_S)
        return found

    def _followed(self, kind: type[T]) -> T | None:
        said = self.ranks.gather(None, LEADING_S)[0]
        if "ending" in said:
            raise ENDINGS.get(said["ending"], Parted)(said["text"])
        return None if said["value"] is None else from_json(kind, said["value"])

    def any(self, text: str) -> str:
        """What all ranks have to say; empty when none has anything."""
        if self.size == 1:
            return text
        return by_rank(self.ranks.gather(text, PATIENCE_S))

    def some(self, value: dict[str, Any]) -> dict[str, Any]:
        """The first rank's value that is not empty, on every rank."""
        if self.size == 1:
            return value
        return next((each for each in self.ranks.gather(value, PATIENCE_S) if each), {})

    def damage(self, met: Damaged | None) -> Damaged | None:
        """What damage any rank has met, on every rank; None where all is well."""
        where = self.some({"key": met.key, "version": met.version} if met is not None and met.key else {})
        text = self.any("" if met is None else str(met))
        return Damaged(text, **where) if text else None

    def all(self, texts: list[str]) -> list[str]:
        """The lines of all ranks; one that several have is there once."""
        if self.size == 1:
            return texts
        found: dict[str, int] = {}
        for rank, each in enumerate(self.ranks.gather(texts, PATIENCE_S)):
            for text in each:
                found.setdefault(text, rank)
        return [text if rank == 0 else f"rank {rank}: {text}" for text, rank in found.items()]

    def first(self, value: Any, within_s: float = PATIENCE_S) -> Any:
        """Rank 0's value, on every rank."""
        return value if self.size == 1 else self.ranks.gather(value, within_s)[0]

    def part(self, said: bool) -> bool:
        """Wait, not for long, until every rank has come to the same end; whether all `said` so."""
        if self.size == 1:
            return said
        try:
            return all(self.ranks.gather(said, FAREWELL_S))
        except Parted:
            return False
