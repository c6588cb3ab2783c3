"""Signs that the program gets on: steps, waits for a save, and what the script itself says."""

from __future__ import annotations

import time


class Progress:
    """Counts signs, and keeps the longest time between two of them."""

    def __init__(self) -> None:
        self.signs = 0
        self.longest_s = 0.0
        self._last: float | None = None  # monotonic

    def seen(self, steps: bool = True) -> None:
        """The program is at work.

        Args:
            steps: it comes from the training itself, so that the time since the sign before says how long one may take.
        """
        now = time.monotonic()
        if self._last is not None and steps:
            self.longest_s = max(self.longest_s, now - self._last)
        self._last = now
        self.signs += 1

    def begin(self) -> None:
        """A loop begins: what was before it says nothing about the time between two steps."""
        self._last = None
        self.signs += 1
