"""The health gate: is this training state fit to be resumed from, and to be called good."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from spotrelay.core.checkpoint import Health
from spotrelay.core.spec import HealthRules

WINDOW = 128  # losses that make the band
ENOUGH = 24  # losses before there is a band
RECENT = 5  # losses whose median is judged: one bad batch is no divergence
WIDTH = 8.0  # robust standard deviations above the median
MOST_REASON = 300  # characters of a reason that a script gives
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

    def losses(self) -> list[float]:
        """What makes the band, oldest first: a resumed attempt goes on with it."""
        return list(self._losses)

    def recall(self, losses: Iterable[float]) -> None:
        """Begin again with the band that an earlier checkpoint had."""
        self._losses = deque((loss for loss in losses if math.isfinite(loss)), maxlen=WINDOW)
        self._newest = None

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


class Divergence:
    """Whether a run has gone astray for good, rather than for a step."""

    def __init__(self, rules: HealthRules) -> None:
        self._patience = {Health.BAD: rules.bad_steps, Health.SUSPECT: rules.suspect_steps}
        self._since: dict[Health, int] = {}  # first of the steps in a row that were at least as ill

    def see(self, step: int, judgement: Judgement) -> str:
        """Why the run counts as diverged after this step; empty when it does not.

        Args:
            step: it grows; steps that were not looked at count as the ones around them.
        """
        ill = [health for health in (Health.SUSPECT, Health.BAD) if _at_least(judgement.health, health)]
        self._since = {health: self._since.get(health, step) for health in ill}
        for health, since in self._since.items():
            if step - since + 1 >= self._patience[health]:
                return f"{judgement.health.value} for {step - since + 1} steps: {judgement.reason}"
        return ""

    def forget(self) -> None:
        """Begin to count anew."""
        self._since = {}


def _at_least(health: Health, ill: Health) -> bool:
    return health is ill or health is Health.BAD


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """The gravest of several; the first of equals, which has the reason that is told."""
    order = [Health.HEALTHY, Health.SUSPECT, Health.BAD]
    return max(judgements, key=lambda each: order.index(each.health))


def said(answer: object) -> Judgement:
    """What a user's own check means: nothing or True is healthy, False suspect, a text the reason.

    A text that begins with "bad" makes the state bad; "healthy" and "suspect" mean themselves.
    """
    if answer is None or answer is True or answer == "healthy":
        return Judgement(Health.HEALTHY)
    if answer is False:
        return Judgement(Health.SUSPECT, "the script's check said no")
    if not isinstance(answer, str):
        kind = type(answer).__qualname__
        return Judgement(Health.SUSPECT, f"the script's check gave a {kind}: a bool, a text or None was expected")
    text = answer[:MOST_REASON]
    return Judgement(Health.BAD if text.lower().startswith("bad") else Health.SUSPECT, f"the script's check: {text}")


def joined(loss: Judgement, broken: tuple[str, ...]) -> Judgement:
    """The verdict from the loss and from the names of arrays that are not finite."""
    if broken and loss.health is not Health.BAD:
        shown = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        return Judgement(Health.BAD, f"not finite: {shown}")
    return loss
