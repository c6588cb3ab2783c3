"""Launches that EC2 throttled stand in line: each gets a turn at the rate that EC2 takes, so that none asks in vain.

The line of a region is one moment, its end. Whoever joins gets that moment and moves the end on by one
launch. Who keeps it may lose a turn without harm: nobody launches in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

LAUNCHES_A_SECOND = 5.0  # what EC2 refills of an account's mutating calls in a region, unless it was raised
HORIZON = timedelta(minutes=10)  # turns are given up to here: SQS hides a message for fifteen minutes at most


@dataclass(frozen=True)
class Turn:
    """When a launch may be sent, or when to ask again."""

    at: datetime
    taken: bool  # False: the line is longer than the horizon; nothing was reserved


@dataclass(frozen=True)
class Pace:
    """How fast a region's line moves."""

    per_second: float = LAUNCHES_A_SECOND
    horizon: timedelta = HORIZON

    @property
    def step(self) -> timedelta:
        """From one turn to the next."""
        return timedelta(seconds=1 / self.per_second)


def join(end: datetime | None, now: datetime, pace: Pace, spread: float) -> tuple[Turn, datetime | None]:
    """The turn of one more launch, and the end of the line after it.

    Args:
        end: the end of the line so far; None, or passed, where nobody waits.
        spread: 0 to 1, drawn by the caller: those who come too early to stand in line come back one by one.
    """
    at = max(end or now, now) + (timedelta(0) if end is not None and end > now else pace.step)
    if at > now + pace.horizon:
        return Turn(now + pace.horizon * (1 + spread) / 2, taken=False), end
    return Turn(at, taken=True), at + pace.step
