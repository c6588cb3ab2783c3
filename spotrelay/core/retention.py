"""Which checkpoints are kept, which are retired, and how far the tidying of a run's bucket has come.

Retired is a mark first: from then on nobody may resume from the checkpoint or build on it. Its
objects go a grace later, and only those that nothing else names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spotrelay.core.checkpoint import (
    Checkpoint,
    CheckpointId,
    awaiting_verification,
    left_behind,
    newest_promoted,
    resume_candidate,
)
from spotrelay.core.spec import Keep


@dataclass(frozen=True)
class Upkeep:
    """How far the tidying of a run's bucket has come. Ids as texts; the empty one comes before every save."""

    due_at: datetime | None = None  # when the bucket is looked through next
    settled: str = ""  # up to here it has been certain for a grace which saves were committed
    settling: str = ""  # up to here it is certain since `since`
    since: datetime | None = None  # None: never looked through

    @property
    def begun(self) -> bool:
        """Whether there was a reason to look, ever."""
        return self.due_at is not None or self.since is not None


def advanced(upkeep: Upkeep, settled: CheckpointId, now: datetime, grace: timedelta) -> Upkeep:
    """The upkeep at a look at which it is certain up to `settled` which saves were committed."""
    if upkeep.since is None:
        return replace(upkeep, settling=str(settled), since=now)
    if now - upkeep.since < grace:
        return upkeep
    return replace(upkeep, settled=upkeep.settling, settling=str(settled), since=now)


def superfluous(
    checkpoints: tuple[Checkpoint, ...], keep: Keep, in_use: frozenset[str] = frozenset(), *, over: bool = False
) -> tuple[Checkpoint, ...]:
    """Those to retire now, oldest first.

    Args:
        checkpoints: every one of the run that is still known.
        in_use: ids that attempts alive have resumed from.
        over: the run has ended: only what a person may want to go on from is kept.
    """
    there = tuple(c for c in checkpoints if not c.retired)
    kept = {c.id for c in _kept(checkpoints, there, keep, over=over)}
    return tuple(sorted((c for c in there if c.id not in kept and str(c.id) not in in_use), key=lambda c: c.id))


def _kept(
    known: tuple[Checkpoint, ...], there: tuple[Checkpoint, ...], keep: Keep, *, over: bool
) -> Iterator[Checkpoint]:
    behind = left_behind(known)  # a retired one still tells whom it left behind
    ahead = [c for c in there if c.usable and c.id not in behind]
    good = sorted((c for c in ahead if c.verified), key=lambda c: c.id, reverse=True)
    yield from _one(resume_candidate(known))
    yield from _one(max((c for c in ahead if c.promoted), key=lambda c: c.id, default=None))
    yield from _one(newest_promoted(known))
    yield from (c for c in there if c.commit.back_to and _tells_of_one(c, there))
    yield from _milestones(good, keep.every_steps)
    newest = max(there, key=lambda c: c.id, default=None)
    if over:
        yield from (c for c in _one(newest) if c.usable)
        return
    yield from _one(newest)
    yield from awaiting_verification(known)
    yield from good[: keep.newest]


def _tells_of_one(back: Checkpoint, there: tuple[Checkpoint, ...]) -> bool:
    """Whether anything is there that only this checkpoint shows to be left behind: without it, it would be good."""
    target = CheckpointId.of(back.commit.back_to)
    return any(target < c.id < back.id for c in there)


def _one(checkpoint: Checkpoint | None) -> tuple[Checkpoint, ...]:
    """The checkpoint, or nothing."""
    return () if checkpoint is None else (checkpoint,)


def _milestones(good: list[Checkpoint], every_steps: int | None) -> Iterator[Checkpoint]:
    """The first at or after each multiple of so many steps."""
    if every_steps is None:
        return
    first: dict[int, Checkpoint] = {}
    for checkpoint in good:  # newest first: of several at the same step the newest stays
        multiple = checkpoint.commit.step // every_steps
        held = first.get(multiple)
        if multiple and (held is None or checkpoint.commit.step < held.commit.step):
            first[multiple] = checkpoint
    yield from first.values()
