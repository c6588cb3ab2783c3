"""When to checkpoint: Young's interval from measured costs, inside the user's floor and ceiling.

All numbers are seconds. The caller measures; nothing here looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.spec import Cadence

PRIOR_UPTIME_S = 7200.0  # mean life of a scarce Spot machine before anything is known of this run
FIRST_SHARE = 0.25  # of the floor: a fresh machine is the likeliest to be lost, so the first save is early
SAFETY = 1.3  # times the measured time: a last save that is late is worth nothing
BUSY_SHARE = 1.25  # times the time to durable: one save has to be over before the next begins


@dataclass(frozen=True)
class Costs:
    """What checkpoints of this run cost so far."""

    stall_s: float = 1.0  # training blocked by one
    durable_s: float = 0.0  # from the snapshot until it is committed
    uptime_s: float = PRIOR_UPTIME_S  # mean time between losses of a machine
    announced: float = 0.0  # measured share of losses before which a last save was committed, 0 to 1


@dataclass(frozen=True)
class Progress:
    """What happened since the last checkpoint was begun, or since training began."""

    seconds: float
    steps: int
    saves: int  # checkpoints begun by this attempt


def learned_uptime(uptimes: Iterable[float], losses: int, prior: float = PRIOR_UPTIME_S) -> float:
    """Mean time between losses: the prior counts as one loss after `prior` seconds, then data takes over.

    Args:
        uptimes: how long each machine of the run trained, lost or not.
        losses: how many of them were lost.
    """
    return (prior + sum(uptimes)) / (1 + losses)


def young(costs: Costs) -> float:
    """The interval that loses least: √(2 C M), longer by what announced losses do not cost.

    Source:
        Young 1974; Aupy, Robert, Vivien, Zaidouni, arXiv 1207.6936, for announced losses.
    """
    surprises = max(1.0 - costs.announced, 0.01)
    return math.sqrt(2.0 * costs.stall_s * costs.uptime_s / surprises)


def interval(cadence: Cadence, costs: Costs, scale: float = 1.0) -> float:
    """Time between the beginnings of two checkpoints.

    Args:
        scale: of a demo's clock; the user's seconds and the mean uptime shrink with it, measured costs do not.
    """
    if cadence.every_s is not None:
        return cadence.every_s * scale
    shrunk = Costs(costs.stall_s, costs.durable_s, costs.uptime_s * scale, costs.announced)
    wished = max(young(shrunk), cadence.floor_s * scale)
    return max(min(wished, cadence.ceiling_s * scale), BUSY_SHARE * costs.durable_s)


def due(cadence: Cadence, costs: Costs, progress: Progress, scale: float = 1.0) -> SaveReason | None:
    """Why a checkpoint should be taken after this step, if one should."""
    if progress.steps < 1:
        return None
    if cadence.every_steps is not None:
        return SaveReason.CADENCE if progress.steps >= cadence.every_steps else None
    wait = interval(cadence, costs, scale)
    if progress.saves == 0 and cadence.every_s is None:
        wait = min(wait, FIRST_SHARE * cadence.floor_s * scale)
        return SaveReason.FIRST if progress.seconds >= wait else None
    return SaveReason.CADENCE if progress.seconds >= wait else None


class LastSave(Enum):
    """What to do with what is left of a notice."""

    NOTHING = "nothing"  # no save can be over in time, or none is needed
    FINISH = "finish"  # only the one under way
    FINISH_THEN_NEW = "finish, then new"
    NEW = "new"  # in place of the one under way, if there is one


def last_save(left_s: float, whole_s: float, flying_s: float | None, new_steps: int) -> LastSave:
    """The most that fits into the rest of a notice.

    Args:
        left_s: until the deadline.
        whole_s: that a save took from its snapshot to its commit; 0 before the first, and then one is tried.
        flying_s: how long ago the one under way was begun; None when none is.
        new_steps: steps that no save under way or committed has.
    """
    need_s = whole_s * SAFETY
    rest_s = max(need_s - flying_s, 0.0) if flying_s is not None else 0.0
    if new_steps and rest_s + need_s < left_s:
        return LastSave.NEW if flying_s is None else LastSave.FINISH_THEN_NEW
    if new_steps and need_s < left_s:
        return LastSave.NEW
    if flying_s is not None and left_s > 0:
        return LastSave.FINISH
    return LastSave.NOTHING
