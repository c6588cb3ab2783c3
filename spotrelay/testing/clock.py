"""A clock that a test moves."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class ManualClock:
    """Stands still until it is told to move."""

    def __init__(self, start: datetime = START) -> None:
        self._lock = threading.Lock()
        self._now = start

    def now(self) -> datetime:
        """The time that was set last."""
        with self._lock:
            return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move by this much, backwards when negative, and return the new time."""
        with self._lock:
            self._now += by
            return self._now

    def set(self, to: datetime) -> None:
        """Jump to this time."""
        with self._lock:
            self._now = to
