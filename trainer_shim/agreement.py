"""How all ranks come to act at the same step without waiting for each other.

After each step every rank hears what all of them said after the step before, acts upon it, and says its word. So
the exchange runs beside a whole step, nobody stops for it, and whatever follows from it happens on all ranks alike.
A process that trains by itself hears itself at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from spotrelay.core.checkpoint import SaveReason
from trainer_shim.ranks import Numbers, Parted, Ranks

REASONS = tuple(SaveReason)
FAR_MS = 2**40  # longer than any notice, in milliseconds
PATIENCE_S = 1800.0  # for a rank that is slow, as long as torch.distributed's own


class Moment(IntEnum):
    """Where in its training a rank is."""

    BEGIN = 1  # before the first batch of a loop
    STEP = 2  # after a step
    FINISH = 3  # after the last one
    LEAVE = 4


@dataclass(frozen=True)
class Word:
    """What one rank says, or all of them together."""

    moment: Moment
    step: int  # steps finished
    settled: bool = True  # False in the middle of accumulated gradients
    ending: float | None = None  # monotonic; when the attempt has to be over
    reason: SaveReason | None = None  # why a checkpoint should be begun; rank 0 decides
    busy: bool = False  # a save is under way
    fenced: bool = False  # a commit was refused because another attempt is in place
    ill: bool = False  # the newest step was not in good health
    diverged: bool = False  # the run has gone astray for good


class Agreement:
    """The words of all ranks, one exchange after the other."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pending: Callable[[float], Numbers] | None = None

    def hear(self, word: Callable[[], Word]) -> Word | None:
        """What all ranks said after the step before, to act upon now; None at the first.

        Args:
            word: what a process by itself hears.

        Raises:
            Parted: a rank has left, or is somewhere else in its training.
        """
        return word() if self._ranks.size == 1 else self._read()

    def say(self, word: Callable[[], Word]) -> None:
        """Begin to tell the others, once all has been done that followed from what was heard.

        Raises:
            Parted: a rank has left.
        """
        if self._ranks.size > 1:
            self._pending = self._ranks.compare(_numbers(word()))

    def now(self, word: Word, within_s: float = PATIENCE_S) -> Word:
        """What all ranks say right now; waits for the slowest.

        Raises:
            Parted: a rank has left, or is somewhere else in its training.
        """
        if self._ranks.size == 1:
            return word
        self._read(within_s)
        return _joined(self._ranks.compare(_numbers(word))(within_s))

    def _read(self, within_s: float = PATIENCE_S) -> Word | None:
        pending, self._pending = self._pending, None
        return None if pending is None else _joined(pending(within_s))


def _numbers(word: Word) -> Numbers:
    left_ms = None if word.ending is None else max(round((word.ending - time.monotonic()) * 1000), 0)
    return [
        word.moment,
        -word.moment,
        word.step,
        -word.step,
        word.settled,
        -word.settled,
        0 if left_ms is None else FAR_MS - min(left_ms, FAR_MS - 1),
        0 if word.reason is None else 1 + REASONS.index(word.reason),
        word.busy,
        word.fenced,
        word.ill,
        word.diverged,
    ]


def _joined(numbers: Numbers) -> Word:
    last, first, most, least, any_settled, all_settled, urgency, reason, *rest = numbers
    if last != -first:
        raise Parted(
            f"a rank is at the {Moment(-first).name.lower()} of its loop where another is at its "
            f"{Moment(last).name.lower()}, after {-least} to {most} steps: every rank has to make the same steps"
        )
    if most != -least or any_settled != -all_settled:
        raise Parted(
            f"ranks have made {-least} to {most} steps, or accumulate gradients at different ones: call run.step() "
            "on every rank, for the same batches"
        )
    ending = time.monotonic() + (FAR_MS - urgency) / 1000 if urgency else None
    wish = REASONS[reason - 1] if reason else None
    busy, fenced, ill, diverged = map(bool, rest)
    return Word(Moment(last), most, bool(any_settled), ending, wish, busy, fenced, ill, diverged)
