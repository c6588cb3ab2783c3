"""The cadence on recorded spells, on a virtual clock: the real code beside every fixed interval of a grid.

Each spell costs a restart; then steps follow one another without end. A checkpoint stops them for a while and is
durable a while later. An announced loss stops them a notice earlier, for the last save that `last_save` chooses;
any loss keeps what was durable by then. What is learnt comes from earlier spells of the same trace alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spotrelay.core.cadence import (
    USABLE_S,
    Costs,
    Flying,
    LastSave,
    announced_share,
    first_interval,
    interval,
    last_save,
)
from spotrelay.core.hazard import Life, learned
from spotrelay.core.spec import Cadence
from spotrelay.simulation.spells import Spell
from spotrelay.simulation.traces import Seconds

GRID: tuple[Seconds, ...] = (
    60,
    90,
    120,
    180,
    240,
    300,
    420,
    600,
    900,
    1200,
    1800,
    2700,
    3600,
    5400,
    7200,
    10800,
    14400,
)

Wait = Callable[[Seconds, int], Seconds]
"""From the machine's age and the checkpoints it has begun: time until the next one begins."""


@dataclass(frozen=True)
class Case:
    """What a trace does not tell."""

    cost_s: Seconds  # training blocked by a checkpoint
    announced: float  # share of losses that come with a notice
    upload_s: Seconds = 10.0  # from the end of the block until the checkpoint is committed
    restart_s: Seconds = 300.0  # from a machine to its first new step

    @property
    def durable_s(self) -> Seconds:
        return self.cost_s + self.upload_s


@dataclass(frozen=True)
class Played:
    """How one cadence fared."""

    efficiency: float  # kept work, as a share of the time that machines were there
    interval_s: Seconds | None = None  # of a fixed one


@dataclass(frozen=True)
class Result:
    """One case on one trace."""

    case: Case
    best_fixed: Played
    spotrelay: Played

    @property
    def behind_points(self) -> float:
        """How many hundredths the real code is behind the best fixed interval; negative: ahead of it."""
        return 100 * (self.best_fixed.efficiency - self.spotrelay.efficiency)


def compare_cadences(spells: tuple[Spell, ...], case: Case, cadence: Cadence, prior_s: Seconds, seed: int) -> Result:
    """The real code on this trace, and the best of the grid, which was chosen knowing all of the trace."""
    grid = [Played(_efficiency(spells, case, [_fixed(every, case)] * len(spells)), every) for every in GRID]
    waits = list(_learning(spells, case, cadence, prior_s, seed))
    return Result(case, max(grid, key=lambda each: each.efficiency), Played(_efficiency(spells, case, waits)))


def _efficiency(spells: tuple[Spell, ...], case: Case, waits: list[Wait]) -> float:
    """Expected over whether each loss is announced, so that luck with a few long spells decides nothing."""
    kept = 0.0
    for spell, wait in zip(spells, waits, strict=True):
        surprised, announced = (kept_work(spell, case, wait, told) for told in (False, True))
        kept += (1 - case.announced) * surprised + case.announced * announced
    return kept / sum(spell.seconds for spell in spells)


def _fixed(every_s: Seconds, case: Case) -> Wait:
    cadence, costs = Cadence(every_s=every_s), Costs(case.cost_s, case.durable_s)
    wait = max(interval(cadence, costs), case.durable_s)  # never two in flight
    return lambda age_s, saves: wait


def _learning(spells: Iterable[Spell], case: Case, cadence: Cadence, prior_s: Seconds, seed: int) -> Iterable[Wait]:
    """The real code at the beginning of each spell, with what the ones before have shown."""
    dice = random.Random(seed)
    lives: list[Life] = []
    losses = announced = 0
    for spell in spells:
        hazard = learned(lives, prior_s)
        share = announced_share(losses, announced)
        yield _real(cadence, Costs(case.cost_s, case.durable_s, 0.0, share, case.durable_s, hazard))
        told = dice.random() < case.announced
        if spell.seconds > case.restart_s:
            lives.append(Life(spell.seconds - case.restart_s, spell.lost))
            losses += spell.lost
            announced += spell.lost and told


def _real(cadence: Cadence, costs: Costs) -> Wait:
    def wait(age_s: Seconds, saves: int) -> Seconds:
        return first_interval(cadence, costs) if saves == 0 else interval(cadence, costs, age_s)

    return wait


def kept_work(spell: Spell, case: Case, wait: Wait, announced: bool) -> Seconds:
    """The work of this spell that no loss takes back."""
    end = spell.seconds - case.restart_s
    stop = end - USABLE_S if announced and spell.lost else end
    work = begun = now = 0.0
    safe: Seconds = 0.0  # of committed checkpoints
    flying: tuple[Seconds, Seconds] | None = None  # when the newest was begun, and the work in it
    saves = 0
    while (begin := begun + wait(begun, saves)) < stop:
        work += begin - now
        if flying is not None:
            safe = flying[1]
        begun, flying, saves = begin, (begin, work), saves + 1
        now = begin + case.cost_s
    work += max(stop - now, 0.0)
    if not spell.lost:
        return work if end > 0 else 0.0
    if flying is not None and flying[0] + case.durable_s <= min(stop, end):
        safe, flying = flying[1], None
    if announced and stop > 0:
        return _last_words(case, end, max(stop, now), work, safe, flying)
    return flying[1] if flying is not None and flying[0] + case.durable_s <= end else safe


def _last_words(
    case: Case, end: Seconds, now: Seconds, work: Seconds, safe: Seconds, flying: tuple[Seconds, Seconds] | None
) -> Seconds:
    """What a notice makes of the work that is not safe yet."""
    under_way = None if flying is None else Flying(now - flying[0])
    choice = last_save(end - now, case.durable_s, under_way, 1)
    if choice in (LastSave.NEW, LastSave.FINISH_THEN_NEW):
        return work
    if choice is LastSave.FINISH and flying is not None and flying[0] + case.durable_s <= end:
        return flying[1]
    return safe
