"""Where an attempt may run: capacity pools, and the ladder of rungs that a launch climbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from spotrelay.core.quotas import family_of


class Market(Enum):
    """How the capacity is bought."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"
    RESERVED = "reserved"  # a capacity reservation that is paid for anyhow
    BLOCK = "capacity-block"  # one that begins and ends at fixed times
    OWN = "own"  # a host of the lab's own, see `spotrelay.core.hosts`

    @property
    def is_reserved(self) -> bool:
        """Whether its capacity was bought before."""
        return self in (Market.RESERVED, Market.BLOCK)


class FailureScope(Enum):
    """How far a refusal reaches: what the next rung must avoid."""

    POOL = "pool"
    ZONE = "zone"
    QUOTA = "region-and-family-quota"
    REGION = "region"  # it could not be reached: nothing was sent
    ACCOUNT = "account"
    CONFIGURATION = "configuration"
    THROTTLE = "throttle"
    SERVER = "server"
    UNKNOWN = "unknown"


@dataclass(frozen=True, order=True)
class Pool:
    """One capacity pool: a region, a zone, an instance type, a market."""

    region: str
    zone: str
    instance_type: str
    market: str = Market.SPOT.value
    reservation: str = ""  # id of the capacity reservation, where the market is one

    def __str__(self) -> str:
        name = f"{self.instance_type}/{self.zone}/{self.market}"
        return f"{name}/{self.reservation}" if self.reservation else name

    @property
    def family(self) -> str:
        """The quota that this type draws on."""
        return family_of(self.instance_type)


@dataclass(frozen=True)
class Refusal:
    """One definite no of EC2's to a launch."""

    pool: Pool
    scope: FailureScope
    code: str  # EC2's error code, as answered
    message: str
    at: datetime  # by the control plane's clock


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: the pools of one launch request, best first."""

    pools: tuple[Pool, ...]
    why: str
    nodes: int = 1  # machines, all of them or none, in one zone and of one type
    placement_group: str = ""  # name of the cluster placement group that they go into
    keeps: tuple[str, ...] = ()  # machines of the gang before that the new ones join


@dataclass(frozen=True)
class Score:
    """What an hour of progress in a pool costs: see `spotrelay.core.scoring`."""

    dollars: float  # for comparison: the wishes of the spec are in it
    why: str


REMEMBERED: dict[FailureScope, timedelta] = {
    FailureScope.POOL: timedelta(minutes=3),
    FailureScope.ZONE: timedelta(minutes=5),
    FailureScope.QUOTA: timedelta(minutes=30),
    FailureScope.REGION: timedelta(minutes=5),
    FailureScope.ACCOUNT: timedelta(minutes=15),
    FailureScope.THROTTLE: timedelta(seconds=10),
    FailureScope.SERVER: timedelta(seconds=30),
    FailureScope.UNKNOWN: timedelta(minutes=2),
    FailureScope.CONFIGURATION: timedelta(days=3650),
}


REACH_FAR = frozenset(
    {
        FailureScope.ZONE,
        FailureScope.QUOTA,
        FailureScope.REGION,
        FailureScope.ACCOUNT,
        FailureScope.CONFIGURATION,
        FailureScope.THROTTLE,
    }
)  # refusals that speak of more than the pool that was asked

# What is paid for comes first. Where hosts of one's own stand is the spec's word: `spotrelay.core.markets`.
RANKS = {Market.RESERVED: 0, Market.BLOCK: 0, Market.SPOT: 1, Market.ON_DEMAND: 2, Market.OWN: 3}
LOST_FOR = timedelta(minutes=10)
SECOND_CHOICE = 0.5  # what an hour on the next type of the spec's list is worth: the list is a wish
WORTH_ASKING = 1 / 3  # of the best pool's worth: EC2 picks among what we ask for, so what is far worse waits


def excludes(refusal: Refusal, pool: Pool, now: datetime, scale: float = 1.0) -> bool:
    """Whether an earlier refusal still keeps us out of this pool."""
    return in_force(refusal, now, scale) and reaches(refusal, pool)


def in_force(refusal: Refusal, now: datetime, scale: float = 1.0) -> bool:
    """Whether a refusal is still remembered."""
    return now < refusal.at + REMEMBERED[refusal.scope] * scale


def reaches(refusal: Refusal, pool: Pool) -> bool:
    """Whether a refusal speaks of this pool too."""
    same_region = refusal.pool.region == pool.region
    match refusal.scope:
        case FailureScope.ZONE:
            return refusal.pool.zone == pool.zone
        case FailureScope.QUOTA:
            same_market = refusal.pool.market == pool.market
            return same_region and same_market and refusal.pool.family == pool.family
        case FailureScope.REGION:
            return same_region
        case FailureScope.ACCOUNT | FailureScope.CONFIGURATION | FailureScope.THROTTLE:
            return True
        case _:
            return refusal.pool == pool


def closed(pools: Iterable[Pool], refusals: Iterable[Refusal], now: datetime, scale: float = 1.0) -> set[Pool]:
    """Those of these pools that a remembered refusal keeps us out of."""
    noes = [r for r in refusals if in_force(r, now, scale)]
    named = {r.pool for r in noes}
    wide = [r for r in noes if r.scope in REACH_FAR]
    return {p for p in pools if p in named or any(reaches(r, p) for r in wide)}


def next_rung(
    pools: tuple[Pool, ...],
    refusals: tuple[Refusal, ...],
    lost: tuple[tuple[Pool, datetime], ...],
    now: datetime,
    scale: float = 1.0,
    worth: Mapping[Pool, float] | None = None,
    scores: Mapping[Pool, Score] | None = None,
) -> Rung | None:
    """The next launch request's pools, or None when every pool is refused for now.

    Reserved capacity comes first, then sibling zones of the preferred type, then the other types in its order,
    then on-demand. Where the account has experience, Spot pools go by it instead, across zones
    and regions. A pool that was lost lately goes to the very end: losses cluster within a type
    and zone.

    Args:
        pools: what the spec allows, preferred first.
        refusals: definite refusals so far; each is remembered as long as its scope says.
        lost: pools in which an attempt of this run ended, with the time.
        now: the control plane's clock, UTC.
        scale: factor on every memory, for a demo whose clocks run fast.
        worth: hours that a machine may be expected to last, by pool; None or empty when nothing is known.
        scores: what an hour of progress costs, by pool; where it is known it decides, and the hours that
            machines last are in it. None or empty where pools differ in nothing else.
    """
    values = _values(pools, worth or {})
    ranked = _ranked(pools, values, scores or {})
    shut = closed(pools, refusals, now, scale)
    open_pools = [p for p in ranked if p not in shut]
    fresh = [p for p in open_pools if not any(p == q and now < at + LOST_FOR * scale for q, at in lost)]
    best = "cheapest" if scores else "expected to last longest" if values else "preferred"
    for group, why in ((fresh, best), (open_pools, "only lately lost pools are left")):
        if group:
            same = tuple(p for p in group if _one_request(p, group[0]) and _worth_asking(p, group[0], values))
            zones = ", ".join(p.zone for p in same)
            reason = f"{scores[same[0]].why}; {why}" if scores else why
            return Rung(same, f"{same[0].instance_type} {same[0].market} in {zones} ({reason})")
    return None


def _ranked(
    pools: tuple[Pool, ...], values: Mapping[Pool, float], scores: Mapping[Pool, Score]
) -> tuple[Pool, ...] | list[Pool]:
    if scores:
        return sorted(pools, key=lambda p: (RANKS[Market(p.market)], scores[p].dollars))
    return sorted(pools, key=lambda p: (RANKS[Market(p.market)], -values[p])) if values else pools


def _values(pools: tuple[Pool, ...], worth: Mapping[Pool, float]) -> dict[Pool, float]:
    """Each pool's worth with the spec's order of types in it. What is not taken back is all alike."""
    if not worth:
        return {}
    types = list(dict.fromkeys(p.instance_type for p in pools))
    wish = {name: SECOND_CHOICE**rank for rank, name in enumerate(types)}
    lasting = {p: worth.get(p, 0.0) if p.market == Market.SPOT.value else 1.0 for p in pools}
    return {p: hours * wish[p.instance_type] for p, hours in lasting.items()}


def _worth_asking(pool: Pool, first: Pool, values: Mapping[Pool, float]) -> bool:
    return not values or values[pool] >= values[first] * WORTH_ASKING


def _one_request(pool: Pool, first: Pool) -> bool:
    names = ("region", "instance_type", "market", "reservation")
    return all(getattr(pool, name) == getattr(first, name) for name in names)


def reopens_at(
    pools: tuple[Pool, ...], refusals: tuple[Refusal, ...], now: datetime, scale: float = 1.0
) -> datetime | None:
    """When the first refused pool may be asked again; None if none is refused."""
    noes = [r for r in refusals if in_force(r, now, scale)]
    blocking = [[r for r in noes if reaches(r, pool)] for pool in pools]
    return min((max(r.at + REMEMBERED[r.scope] * scale for r in rs) for rs in blocking if rs), default=None)
