"""When to checkpoint: Young's interval from measured costs, inside the user's floor and ceiling.

All numbers are seconds. The caller measures; nothing here looks at a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.hazard import UNKNOWN, Hazard
from spotrelay.core.pace import SUPPOSED_DRAG
from spotrelay.core.spec import Cadence

FIRST_SHARE = 0.25  # of the floor: a fresh machine is the likeliest to be lost, so the first save is early
FIRST_COST = 0.02  # share of the time trained so far that a first save may cost
SAFETY = 1.3  # times the measured time: a last save that is late is worth nothing
BUSY_SHARE = 1.25  # times the time to durable: one save has to be over before the next begins
USABLE_S = 110.0  # of a notice's two minutes: the rest goes to its discovery, the step's end and the commit
LEAST_SURPRISES = 0.05  # share of losses that is never believed to be announced
UNMEASURED = 0.5  # losses without announcement that are supposed before the first one: r comes from measurement only
COMMIT_SHARE = 0.1  # of a whole save: manifest and commit, which are no bytes of a shard
LONGEST_S = 7 * 86_400.0


@dataclass(frozen=True)
class Costs:
    """What checkpoints of this run cost so far, and how likely its machine is lost."""

    stall_s: float = 1.0  # training blocked by one
    durable_s: float = 0.0  # from the snapshot until it is committed; 0: none was measured yet
    drag: float = SUPPOSED_DRAG  # share of its speed that training loses while a save is under way
    announced: float = 0.0  # measured share of losses before which a last save was committed, 0 to 1
    last_s: float = 0.0  # what a last save in a notice took; 0: none was measured, it is supposed to be as any other
    hazard: Hazard = UNKNOWN

    @property
    def price_s(self) -> float:
        """Training time that one checkpoint costs: the stall, and what the upload takes from the steps beside it."""
        return self.stall_s + self.drag * self.durable_s

    @property
    def expected_last_s(self) -> float:
        """What a last save would take; 0 when nothing was measured."""
        return self.last_s or self.durable_s

    @property
    def surprises(self) -> float:
        """Share of losses that a last save will not precede."""
        if self.expected_last_s * SAFETY > USABLE_S:
            return 1.0
        return min(max(1.0 - self.announced, LEAST_SURPRISES), 1.0)


@dataclass(frozen=True)
class Progress:
    """What happened since the last checkpoint was begun, or since training began."""

    seconds: float
    steps: int
    saves: int  # checkpoints begun by this attempt
    age_s: float = 0.0  # of the machine's service at that moment; 0 where training began


def announced_share(losses: int, announced: int) -> float:
    """Share of losses that were announced in time, as far as it is measured: none before the first loss."""
    return min(announced, losses) / (losses + UNMEASURED)


def young(costs: Costs, age_s: float = 0.0, scale: float = 1.0) -> float:
    """The interval that loses least: √(2 C / λ), longer by what announced losses do not cost.

    Args:
        age_s: of the machine when the interval begins. λ is the hazard in the interval's middle.
        scale: of a demo's clock: ages and losses run faster by it, measured costs do not.

    Source:
        Young 1974; Ling, Mi, Lin 2001 for a hazard that changes; Aupy, Robert, Vivien, Zaidouni, arXiv 1207.6936,
        for announced losses.
    """
    wait = 0.0
    for _ in range(3):
        rate = costs.hazard.rate((age_s + wait / 2) / scale) / scale
        wait = min(math.sqrt(2.0 * costs.price_s / (rate * costs.surprises)), LONGEST_S)
    return wait


def interval(cadence: Cadence, costs: Costs, age_s: float = 0.0, scale: float = 1.0) -> float:
    """Time between the beginnings of two checkpoints.

    Args:
        age_s: of the machine at the first of the two.
        scale: of a demo's clock; the user's seconds shrink with it, measured costs do not.
    """
    if cadence.every_s is not None:
        return cadence.every_s * scale
    wished = max(young(costs, age_s, scale), cadence.floor_s * scale)
    return max(min(wished, cadence.ceiling_s * scale), BUSY_SHARE * costs.durable_s)


def first_interval(cadence: Cadence, costs: Costs, scale: float = 1.0) -> float:
    """Time until the first checkpoint: early, and at once where nothing was measured yet.

    It waits until its cost is a small share of the time that it keeps.
    """
    early = FIRST_SHARE * cadence.floor_s * scale
    if costs.durable_s > 0:
        early = max(early, costs.price_s / FIRST_COST, BUSY_SHARE * costs.durable_s)
    return min(early, interval(cadence, costs, 0.0, scale))


def due(cadence: Cadence, costs: Costs, progress: Progress, scale: float = 1.0) -> SaveReason | None:
    """Why a checkpoint should be taken after this step, if one should."""
    if progress.steps < 1:
        return None
    if cadence.every_steps is not None:
        return SaveReason.CADENCE if progress.steps >= cadence.every_steps else None
    if progress.saves == 0 and cadence.every_s is None:
        return SaveReason.FIRST if progress.seconds >= first_interval(cadence, costs, scale) else None
    wait = interval(cadence, costs, progress.age_s, scale)
    return SaveReason.CADENCE if progress.seconds >= wait else None


class LastSave(Enum):
    """What to do with what is left of a notice."""

    NOTHING = "nothing"  # no save can be over in time, or none is needed
    FINISH = "finish"  # only the one under way
    FINISH_THEN_NEW = "finish, then new"
    NEW = "new"  # in place of the one under way, if there is one


@dataclass(frozen=True)
class Flying:
    """The save under way, as far as it has come."""

    age_s: float  # since its snapshot
    left_bytes: int = 0  # not yet acknowledged
    bytes_per_s: float = 0.0  # at which it goes; 0: nothing of it was acknowledged yet

    def rest_s(self, whole_s: float) -> float:
        """How long it will still take, on the safe side.

        Args:
            whole_s: that a save takes from its snapshot to its commit.
        """
        by_age = max(whole_s * SAFETY - self.age_s, 0.0)
        if self.bytes_per_s <= 0:
            return by_age
        return self.left_bytes / self.bytes_per_s * SAFETY + COMMIT_SHARE * whole_s


def last_save(
    left_s: float,
    whole_s: float,
    flying: Flying | None,
    new_steps: int,
    boundary_s: float = 0.0,
    normal_s: float | None = None,
) -> LastSave:
    """The most that fits into the rest of a notice.

    Args:
        left_s: until the deadline.
        whole_s: that a last save takes from its snapshot to its commit; 0 before the first, and then one is tried.
        flying: the save under way; None when none is.
        new_steps: steps that no save under way or committed has, the one being made included.
        boundary_s: until the step that is being made is expected to end; a new snapshot has to wait for that.
        normal_s: as `whole_s`, for the save under way, which is no last one; the same when None.
    """
    need_s = whole_s * SAFETY
    rest_s = 0.0 if flying is None else flying.rest_s(whole_s if normal_s is None else normal_s)
    if new_steps and max(rest_s, boundary_s) + need_s < left_s:
        return LastSave.NEW if flying is None else LastSave.FINISH_THEN_NEW
    if new_steps and boundary_s + need_s < left_s:
        return LastSave.NEW
    if flying is not None and left_s > 0:
        return LastSave.FINISH
    return LastSave.NOTHING
