"""How long a step takes, and how much slower the steps are while a save is under way. All numbers are seconds."""

from __future__ import annotations

from collections import deque
from statistics import median

REMEMBERED = 32  # steps of either kind
ENOUGH = 8  # steps of either kind before a slowdown is believed
SUPPOSED_DRAG = 0.02  # share of its speed that training loses to a save, before it is measured
MOST_DRAG = 0.5


class Pace:
    """The durations of the newest steps."""

    def __init__(self) -> None:
        self._quiet: deque[float] = deque(maxlen=REMEMBERED)
        self._saving: deque[float] = deque(maxlen=REMEMBERED)
        self._newest: deque[float] = deque(maxlen=REMEMBERED)

    def see(self, seconds: float, saving: bool) -> None:
        """Take note of one step, the stall of a snapshot left out.

        Args:
            saving: whether a save was under way.
        """
        self._newest.append(seconds)
        (self._saving if saving else self._quiet).append(seconds)

    @property
    def step_s(self) -> float:
        """What three of four steps do not exceed; 0 before the first one. One that compiles is no measure."""
        ordered = sorted(self._newest)
        return ordered[(3 * (len(ordered) - 1)) // 4] if ordered else 0.0

    @property
    def drag(self) -> float:
        """Share of its speed that training loses while a save is under way."""
        if min(len(self._quiet), len(self._saving)) < ENOUGH:
            return SUPPOSED_DRAG
        saving = median(self._saving)
        return min(max(1.0 - median(self._quiet) / saving, 0.0), MOST_DRAG) if saving > 0 else 0.0
