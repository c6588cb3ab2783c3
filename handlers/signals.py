"""What an event comes down to: about whom it is, and the facts that it brings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from spotrelay.core.facts import Fact


@dataclass(frozen=True)
class Arrival:
    """When an event came in, and how long a notice lasts here."""

    at: datetime  # UTC, by the queue's clock where it gave one
    notice: timedelta  # lead of an interruption notice
    skew: timedelta = timedelta(minutes=1)  # an event may say that it is this much younger than its arrival
    late: timedelta = timedelta(minutes=15)  # one that is older than this does not know its own time


@dataclass(frozen=True)
class Signal:
    """One event, understood. It names a machine or a run; with neither it is only counted."""

    kind: str  # the event's detail-type
    facts: tuple[Fact, ...] = ()
    instance_id: str | None = None  # of a machine that may or may not be ours
    run_id: str | None = None


@dataclass(frozen=True)
class Quarantined:
    """A malformed event: why, and every byte of the message that carried it."""

    reason: str  # printable ASCII, bounded
    data: bytes
