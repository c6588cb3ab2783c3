"""The health gate: is this training state fit to be resumed from, and to be called good."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from spotrelay.core.checkpoint import Health

WINDOW = 128  # losses that make the band
ENOUGH = 24  # losses before there is a band
RECENT = 5  # losses whose median is judged: one bad batch is no divergence
WIDTH = 8.0  # robust standard deviations above the median
MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reason, for the manifest and for a person."""

    health: Health
    reason: str = ""


class LossBand:
    """The recent losses of one attempt, and whether the newest ones still belong to them."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._newest: float | None = None
        self._step_of_bad: int | None = None

    def see(self, step: int, loss: float) -> None:
        """Take note of the loss of a finished step."""
        self._newest = loss
        if math.isfinite(loss):
            self._losses.append(loss)
        else:
            self._step_of_bad = step

    def judge(self) -> Judgement:
        """The state after the newest step, as far as the loss can tell."""
        if self._newest is not None and not math.isfinite(self._newest):
            return Judgement(Health.BAD, f"the loss of step {self._step_of_bad} is {self._newest}")
        losses = list(self._losses)
        older, recent = losses[:-RECENT], losses[-RECENT:]
        if len(older) < ENOUGH:
            return Judgement(Health.HEALTHY)
        middle = median(older)
        spread = MAD_TO_SIGMA * median(abs(x - middle) for x in older)
        limit = middle + WIDTH * max(spread, 0.01 * abs(middle))
        if median(recent) > limit:
            return Judgement(Health.SUSPECT, f"the loss rose to {median(recent):.4g}; its band ends at {limit:.4g}")
        return Judgement(Health.HEALTHY)


def joined(loss: Judgement, broken: tuple[str, ...]) -> Judgement:
    """The verdict from the loss and from the names of arrays that are not finite."""
    if broken and loss.health is not Health.BAD:
        shown = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        return Judgement(Health.BAD, f"not finite: {shown}")
    return loss
