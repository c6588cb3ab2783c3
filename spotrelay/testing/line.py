"""The line of throttled launches in memory."""

from __future__ import annotations

import threading
from datetime import datetime

from spotrelay.core.line import Pace, Turn, join


class Ends:
    """The end of each region's line: what several processes share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_region: dict[str, datetime] = {}
        self.joined = 0  # requests to the table


class MemoryLine:
    """A `LaunchLine` of one process; give the same ends to several."""

    def __init__(self, pace: Pace | None = None, ends: Ends | None = None) -> None:
        self._pace = pace or Pace()
        self._ends = ends or Ends()
        self._known: dict[str, datetime] = {}

    def stands(self, region: str, now: datetime) -> bool:
        """Whether this process knows of launches that still wait."""
        return now < self._known.get(region, now)

    def join(self, region: str, now: datetime, spread: float) -> Turn:
        """Take the next turn."""
        with self._ends.lock:
            self._ends.joined += 1
            turn, end = join(self._ends.by_region.get(region), now, self._pace, spread)
            if end is not None:
                self._ends.by_region[region] = end
            self._known[region] = turn.at
        return turn
