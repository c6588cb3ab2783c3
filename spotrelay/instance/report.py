"""How the attempt's program, or its boot, ended: a durable row first, then an event as a hint."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import SpotrelayError, Unavailable
from spotrelay.core.live import ExitReport
from spotrelay.core.ports import LiveStore, Publisher
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.metadata import Metadata, Reclaim
from spotrelay.instance.patience import StopAsked, keep_trying


def announce(publisher: Publisher, logbook: Logbook, run_id: str, generation: int, what: str) -> None:
    """Publish `Attempt Reported`. A failure costs latency only: the sweep finds the row."""
    try:
        publisher.publish("Attempt Reported", {"run_id": run_id, "generation": generation, "what": what})
    except SpotrelayError as error:
        logbook.say(f"the event {what!r} could not be sent; the control plane's sweep will notice: {error}")


def deliver(
    report: ExitReport, live: LiveStore, publisher: Publisher, logbook: Logbook, stop: threading.Event,
    timings: Timings, reclaim: Reclaim | None,
) -> bool:  # fmt: skip
    """Put the report until it is accepted or the time for it is over; whether it was accepted."""
    try:
        keep_trying(lambda: live.report(report), patience(timings, reclaim), timings.poll / 5, stop, logbook.say)
    except StopAsked:
        logbook.say("the machine ends before the exit report was accepted")
        return False
    except SpotrelayError as error:
        logbook.say(f"the exit report was not accepted, EC2's own event has to tell: {error}")
        return False
    announce(publisher, logbook, report.run_id, report.generation, "exited")
    return True


def patience(timings: Timings, reclaim: Reclaim | None) -> timedelta:
    """How long a report is worth trying: to EC2's deadline, or as long as silence is borne anyway."""
    if reclaim is None or reclaim.deadline is None:
        return timings.hopeless
    return max(min(reclaim.deadline - datetime.now(UTC), timings.hopeless), timings.poll)


def reclaim_seen(metadata: Metadata, logbook: Logbook) -> Reclaim | None:
    """What the metadata service says; its silence is told, and taken as nothing announced."""
    try:
        return metadata.reclaim()
    except Unavailable as error:
        logbook.say(f"whether EC2 takes this machine is unknown: {error}")
        return None
