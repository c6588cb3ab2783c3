"""What an account has learnt of capacity pools from its own launches, refusals and losses.

Shared by all runs of the account. It only orders the pools that a spec allows and never forbids
one: being wrong costs a restart, never a machine. Every function is pure; who keeps the value
somewhere may lose an update without harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spotrelay.core.outlook import Outlook
from spotrelay.core.placement import FailureScope, Pool, Refusal, closed

HOUR = timedelta(hours=1)
FADES = timedelta(days=5)  # what happened this long ago counts half: pools keep their character for weeks
SUPPOSED = timedelta(hours=1)  # how long a machine lasts in a pool of which nothing is known
REFUSAL_WEIGHS = 0.25  # of a loss: a pool that has nothing to give soon takes back what it gave
ONE_OUTAGE = timedelta(minutes=30)  # trouble closer together than this is one trouble
SETTLES = timedelta(hours=1)  # a pool that comes back flickers at first; the doubt fades within about this
DOUBT = 0.6  # share of its worth that a pool misses right after a refusal or a loss
REFUSED_NOW = 0.1  # factor while the refusal's scope says that asking again is of no use
MACHINES_KEPT = 16  # of one pool, followed by name; those beyond teach nothing
FORGOTTEN = timedelta(days=14)  # a machine whose end nobody told us is not believed in any longer
LEARNT = (FailureScope.POOL, FailureScope.ZONE, FailureScope.QUOTA)  # refusals that speak of a place


@dataclass(frozen=True)
class Tenure:
    """A machine that we hold."""

    instance_id: str
    since: datetime


@dataclass(frozen=True)
class PoolRecord:
    """What happened to us in one pool."""

    pool: Pool
    as_of: datetime  # up to which `hours` and `losses` have faded
    hours: float = 0.0  # that machines lasted which have ended
    losses: float = 0.0  # how many of them were taken from us; a refusal counts for a part
    trouble_at: datetime | None = None  # the last refusal or loss
    refusal: Refusal | None = None  # the last one, until a machine is given
    machines: tuple[Tenure, ...] = ()  # that we hold there now, oldest first
    price: float | None = None  # dollars an hour, as it was last told


@dataclass(frozen=True)
class Experience:
    """Everything learnt, one record for each pool that was ever asked."""

    records: tuple[PoolRecord, ...] = ()
    outlooks: tuple[Outlook, ...] = ()  # what EC2 itself says of zones

    def record_of(self, pool: Pool) -> PoolRecord | None:
        return next((r for r in self.records if r.pool == pool), None)


# Learning


def answered(
    experience: Experience,
    instance_id: str | None,
    given: Pool | None,
    refusals: Iterable[Refusal],
    now: datetime,
    scale: float = 1.0,
) -> Experience:
    """The experience once EC2 has answered a launch; told again, it changes nothing more.

    Args:
        given: the pool of the machine, None together with `instance_id` when there is none.
        scale: factor on every span, for a demo whose clocks run fast.
    """
    for refusal in refusals:
        if refusal.scope in LEARNT:
            experience = _with(experience, _refused(_record(experience, refusal.pool, now, scale), refusal, scale))
    if instance_id is None or given is None:
        return experience
    record = _record(experience, given, now, scale)
    if any(m.instance_id == instance_id for m in record.machines):
        return experience
    held = tuple(m for m in record.machines if now - m.since < FORGOTTEN * scale)
    if len(held) < MACHINES_KEPT:
        held = (*held, Tenure(instance_id, now))
    return _with(experience, replace(record, machines=held, refusal=None))


def ended(
    experience: Experience, pool: Pool, instance_id: str, taken: bool, now: datetime, scale: float = 1.0
) -> Experience:
    """The experience once a machine is gone; a machine that is not followed changes nothing.

    Args:
        taken: EC2 took it or it died. False for one that we ended, or whose program did.
    """
    record = _record(experience, pool, now, scale)
    tenure = next((m for m in record.machines if m.instance_id == instance_id), None)
    if tenure is None:
        return experience
    return _with(
        experience,
        replace(
            record,
            hours=record.hours + max((now - tenure.since) / HOUR, 0.0),
            losses=record.losses + (1.0 if taken else 0.0),
            trouble_at=now if taken else record.trouble_at,
            machines=tuple(m for m in record.machines if m is not tenure),
        ),
    )


def priced(experience: Experience, pool: Pool, price: float, now: datetime, scale: float = 1.0) -> Experience:
    """The experience once a price was told."""
    old = experience.record_of(pool)
    if old is not None and old.price == price:
        return experience
    return _with(experience, replace(_record(experience, pool, now, scale), price=price))


def _refused(record: PoolRecord, refusal: Refusal, scale: float) -> PoolRecord:
    last = record.trouble_at
    if last is not None and refusal.at <= last:
        return record
    known = last is not None and refusal.at - last < ONE_OUTAGE * scale
    losses = record.losses if known else record.losses + REFUSAL_WEIGHS
    return replace(record, losses=losses, trouble_at=refusal.at, refusal=refusal)


def _record(experience: Experience, pool: Pool, now: datetime, scale: float) -> PoolRecord:
    old = experience.record_of(pool)
    if old is None:
        return PoolRecord(pool, now)
    hours, losses = _faded(old, now, scale)
    return replace(old, as_of=max(now, old.as_of), hours=hours, losses=losses)


def _faded(record: PoolRecord, now: datetime, scale: float) -> tuple[float, float]:
    share: float = 0.5 ** max((now - record.as_of) / (FADES * scale), 0.0)
    return record.hours * share, record.losses * share


def _with(experience: Experience, record: PoolRecord) -> Experience:
    others = tuple(r for r in experience.records if r.pool != record.pool)
    return replace(experience, records=(*others, record))


# Judging


def worth(experience: Experience, pools: Iterable[Pool], now: datetime, scale: float = 1.0) -> dict[Pool, float]:
    """Hours that a machine of each pool may be expected to last, as far as an order needs to know.

    Three observations go in. Pools differ by a factor of ten and keep their character, so the
    hours per loss count, and where little is known those of the same type in the same region.
    Spells are heavy-tailed: a pool that was in trouble a moment ago is at its most fickle,
    and one in which a machine of ours has lived for long will go on longer still. A refusal
    keeps us away for its scope's time.

    Returns:
        Empty when nothing is known of any of the pools: the spec's own order stands.
    """
    wanted = tuple(pools)
    records = {r.pool: r for r in experience.records}
    if not any(pool in records for pool in wanted):
        return {}
    evidence = {pool: _evidence(record, now, scale) for pool, record in records.items()}
    kin: dict[tuple[str, str, str], tuple[float, float]] = {}
    for pool, (hours, losses) in evidence.items():
        all_hours, all_losses = kin.get(_kin(pool), (0.0, 0.0))
        kin[_kin(pool)] = all_hours + hours, all_losses + losses
    shut = closed(wanted, (r.refusal for r in records.values() if r.refusal is not None), now, scale)
    supposed = SUPPOSED * scale / HOUR
    values = {}
    for pool in wanted:
        hours, losses = kin.get(_kin(pool), (0.0, 0.0))
        typical = (hours + supposed) / (losses + 1)
        hours, losses = evidence.get(pool, (0.0, 0.0))
        lasting = (hours + typical) / (losses + 1)
        value = lasting * _trust(records.get(pool), now, scale) + _age(records.get(pool), now, scale)
        values[pool] = value * (REFUSED_NOW if pool in shut else 1.0)
    return values


def _kin(pool: Pool) -> tuple[str, str, str]:
    return pool.region, pool.instance_type, pool.market


def _evidence(record: PoolRecord, now: datetime, scale: float) -> tuple[float, float]:
    """Hours and losses; the hours of machines that still live are the best part of it."""
    hours, losses = _faded(record, now, scale)
    return hours + sum((now - m.since) / HOUR for m in _living(record, now, scale)), losses


def _living(record: PoolRecord, now: datetime, scale: float) -> Iterator[Tenure]:
    return (m for m in record.machines if now - m.since < FORGOTTEN * scale)


def _age(record: PoolRecord | None, now: datetime, scale: float) -> float:
    """Hours for which our oldest machine has lived there: what lasted long lasts longer."""
    if record is None:
        return 0.0
    return max(((now - m.since) / HOUR for m in _living(record, now, scale)), default=0.0)


def _trust(record: PoolRecord | None, now: datetime, scale: float) -> float:
    if record is None or record.trouble_at is None:
        return 1.0
    calm: float = 0.5 ** max((now - record.trouble_at) / (SETTLES * scale), 0.0)
    return 1.0 - DOUBT * calm
