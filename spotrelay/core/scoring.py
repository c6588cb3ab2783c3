"""What an hour of progress costs in each pool: where price, life, start and the way of the checkpoint meet.

A machine that lasts L hours at a price, needs R hours from its launch to its first new step, and has to
fetch the checkpoint for E dollars, makes L - R productive hours for L times its price plus E. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from spotrelay.core.checkpoint import resume_candidate
from spotrelay.core.placement import SECOND_CHOICE, Market, Pool, Score
from spotrelay.core.run import Run

HOUR = timedelta(hours=1)
GIB = 2.0**30
SUPPOSED_START = timedelta(minutes=4)  # from a launch to the first new step, until this run's own are known
SUPPOSED_LIFE = 1.0  # hours, where nothing is known of any pool
ON_DEMAND_LIFE = 720.0  # hours: it is not taken back
LEAST_SHARE = 0.01  # of its life that a machine is productive, however short that is


@dataclass(frozen=True)
class Transfer:
    """What it takes to carry a checkpoint into another region."""

    dollars_per_gib: float = 0.02  # what AWS takes from one region to another, mostly
    mib_per_second: float = 200.0  # a cautious rate for several streams side by side

    def hours(self, gib: float) -> float:
        return gib * 1024 / self.mib_per_second / 3600


@dataclass(frozen=True)
class Journey:
    """The newest checkpoint of a run, and where it is."""

    gib: float
    regions: frozenset[str]  # where it lies; empty: it costs nothing to fetch
    transfer: Transfer = Transfer()

    def dollars(self, region: str) -> float:
        return self.gib * self.transfer.dollars_per_gib if self._is_away(region) else 0.0

    def hours(self, region: str) -> float:
        return self.transfer.hours(self.gib) if self._is_away(region) else 0.0

    def _is_away(self, region: str) -> bool:
        return bool(self.regions) and region not in self.regions


def journey_of(run: Run, home: str, transfer: Transfer, replicas: frozenset[str] = frozenset()) -> Journey:
    """How far the checkpoint that would be resumed from has to go; nowhere when there is none.

    Args:
        replicas: further regions in which all of it was seen.
    """
    found = resume_candidate(run.checkpoints)
    return Journey(found.commit.size / GIB if found else 0.0, replicas | {home} if home else frozenset(), transfer)


def start_of(run: Run, supposed: timedelta = SUPPOSED_START) -> timedelta:
    """From a launch to the first new step: the median of this run's attempts; as supposed, before it has shown one."""
    took = [a.first_step_at - a.launched_at for a in run.attempts if a.first_step_at and a.launched_at]
    return timedelta(seconds=median(each.total_seconds() for each in took)) if took else supposed


def scores(
    pools: Iterable[Pool],
    prices: Mapping[Pool, float],
    lasting: Mapping[Pool, float],
    start: timedelta,
    journey: Journey,
    ordered: bool,
) -> dict[Pool, Score]:
    """Dollars for an hour of progress, by pool; empty where only the machines' lives differ.

    Args:
        prices: dollars an hour, of the pools whose price is known; the others count as the dearest of them.
        lasting: hours that a machine may be expected to last; empty when nothing is known.
        ordered: the spec names its types in the order of its wishes, so that an hour of each counts half the last's.
    """
    wanted = tuple(pools)
    known = {p: prices[p] for p in wanted if p in prices}
    away = {journey.dollars(p.region) for p in wanted}
    if len(set(known.values())) < 2 and len(away) < 2:
        return {}
    dearest = max(known.values(), default=1.0)
    types = list(dict.fromkeys(p.instance_type for p in wanted))
    wish = {kind: SECOND_CHOICE**rank if ordered else 1.0 for rank, kind in enumerate(types)}
    return {
        p: _score(p, known.get(p, dearest), _life(p, lasting), start / HOUR, journey, wish[p.instance_type])
        for p in wanted
    }


def _life(pool: Pool, lasting: Mapping[Pool, float]) -> float:
    if pool.market != Market.SPOT.value:
        return ON_DEMAND_LIFE
    return lasting.get(pool, SUPPOSED_LIFE) or SUPPOSED_LIFE * LEAST_SHARE


def _score(pool: Pool, price: float, life: float, start: float, journey: Journey, wish: float) -> Score:
    fetching, egress = journey.hours(pool.region), journey.dollars(pool.region)
    productive = max(life - start - fetching, life * LEAST_SHARE)
    cost = (price * life + egress) / productive
    why = f"{cost:.3g} dollars an hour of progress: {price:.3g} an hour, may last {life:.1f} h"
    way = f", {journey.gib:.1f} GiB from elsewhere for {egress:.2f}" if egress else ""
    return Score(cost / wish, f"{why}, starts within {(start + fetching) * 60:.0f} min{way}")
