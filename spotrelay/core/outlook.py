"""What EC2 says of a request's chances in each zone: Spot placement scores, a hint with an age.

A score, from 1 to 10, speaks of a set of instance types and a number of machines together, at the moment of the
question, and promises nothing. So it tips the scales between zones of which the account's own experience tells little,
and never outweighs a loss or a refusal of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zlib import crc32

from spotrelay.core.placement import Market, Pool

FEWEST_TYPES = 3  # EC2 answers low for fewer, whatever there is
ANEW = timedelta(hours=1)  # a question is asked again after this
BELIEVED = timedelta(hours=2)  # an older answer says nothing any more
WANTED = timedelta(days=1)  # so long after the last launch that would have used it a question is still asked
REFUSED = timedelta(hours=6)  # a question that got no answer is asked again after this
SLOTS = 64  # questions that are kept; further ones take the place of others
LOWEST, HIGHEST = 1, 10
WEIGHS = 0.25  # what the highest score adds to a pool's worth, and the lowest takes


@dataclass(frozen=True)
class Question:
    """What EC2 is asked about: the same for every run with these types, since new questions are counted."""

    instance_types: tuple[str, ...]  # in the order of the alphabet
    nodes: int = 1  # machines wanted at once


@dataclass(frozen=True)
class ZoneScore:
    """One line of an answer."""

    region: str
    zone: str
    score: int  # 1 to 10


@dataclass(frozen=True)
class Outlook:
    """A question, and the newest answer."""

    question: Question
    wanted_at: datetime  # a launch would last have used it then
    asked_at: datetime | None = None
    told_at: datetime | None = None  # when the scores were told
    scores: tuple[ZoneScore, ...] = ()
    problem: str = ""  # why the last asking brought no answer

    @property
    def slot(self) -> int:
        """Where it is kept, from 0 to SLOTS - 1."""
        return crc32(f"{self.question.instance_types} {self.question.nodes}".encode()) % SLOTS

    @property
    def by_zone(self) -> dict[tuple[str, str], int]:
        """Scores by region and zone."""
        return {(each.region, each.zone): each.score for each in self.scores}


def question_of(pools: Iterable[Pool], nodes: int) -> Question | None:
    """What would be asked for these pools; None where the answer would tell nothing."""
    types = sorted({pool.instance_type for pool in pools if pool.market == Market.SPOT.value})
    return Question(tuple(types), nodes) if len(types) >= FEWEST_TYPES else None


def believed(outlooks: Iterable[Outlook], question: Question | None, now: datetime, scale: float = 1.0) -> Outlook:
    """The answer to a question if it is young enough; one without scores otherwise."""
    found = next((o for o in outlooks if o.question == question), None)
    if found is None or found.told_at is None or now - found.told_at >= BELIEVED * scale:
        return Outlook(question or Question(()), now)
    return found


def weighed(
    lasting: Mapping[Pool, float], pools: Iterable[Pool], outlook: Outlook, supposed: float
) -> dict[Pool, float]:
    """Hours that a machine may be expected to last, with the scores in them.

    Args:
        supposed: hours of a pool of which nothing else is known.
    """
    by_zone = outlook.by_zone
    if not by_zone:
        return dict(lasting)
    lowest = min(by_zone.values())  # a zone that EC2 leaves out is none of the best
    return {
        pool: (lasting.get(pool, 0.0) if lasting else supposed)
        * (_factor(by_zone.get((pool.region, pool.zone), lowest)) if pool.market == Market.SPOT.value else 1.0)
        for pool in pools
    }


def said(outlook: Outlook, pools: Iterable[Pool], now: datetime) -> str:
    """The scores of these pools for a launch's reason; empty where there are none."""
    by_zone = outlook.by_zone
    zones = dict.fromkeys((p.region, p.zone) for p in pools if p.market == Market.SPOT.value)
    told = ", ".join(f"{zone} {by_zone[region, zone]}" for region, zone in zones if (region, zone) in by_zone)
    if not told or outlook.told_at is None:
        return ""
    return f"; EC2's placement scores {(now - outlook.told_at) / timedelta(minutes=1):.0f} min ago: {told} of {HIGHEST}"


def renewed(outlooks: Iterable[Outlook], question: Question, now: datetime, scale: float = 1.0) -> Outlook | None:
    """The outlook to write down so that a question is asked from now on; None while it is written down."""
    old = next((o for o in outlooks if o.question == question), None)
    if old is not None and now - old.wanted_at < WANTED * scale / 8:
        return None
    return replace(old, wanted_at=now) if old is not None else Outlook(question, now)


def next_asked(outlooks: Iterable[Outlook], now: datetime, scale: float = 1.0) -> Outlook | None:
    """The question that EC2 should be asked now: the one that was not asked for longest."""
    due = [o for o in outlooks if now - o.wanted_at < WANTED * scale and _is_due(o, now, scale)]
    return min(due, key=lambda o: (o.asked_at or o.wanted_at, o.question.instance_types), default=None)


def _is_due(outlook: Outlook, now: datetime, scale: float) -> bool:
    pause = (REFUSED if outlook.problem else ANEW) * scale
    return outlook.asked_at is None or now - outlook.asked_at >= pause


def _factor(score: int) -> float:
    middle = (LOWEST + HIGHEST) / 2
    return 1.0 + WEIGHS * (min(max(score, LOWEST), HIGHEST) - middle) / (HIGHEST - middle)
