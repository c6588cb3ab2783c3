"""`spotrelay cancel`: the wish is written on the run before anybody is told."""

from __future__ import annotations

import time
from dataclasses import replace

from spotrelay.console.submit import hint, refuse_if_over
from spotrelay.console.wiring import Services
from spotrelay.core.errors import Contention, LostRace, OutcomeUnknown
from spotrelay.core.facts import CancelRequested
from spotrelay.core.record import record
from spotrelay.core.run import Run
from spotrelay.core.site import Site

CANCEL = "Run Cancel Requested"
TRIES = 8
PAUSE_S = 0.1


def cancel(services: Services, run_id: str, reason: str) -> tuple[Run, bool]:
    """Record the wish; the run, and whether it was news.

    Raises:
        UnknownRun: there is none.
        AlreadyEnded: it has a final status.
        LostRace: the row changed under every try; try again.
    """
    run, news = _recorded(services, run_id, reason)
    hint(services, CANCEL, run_id=run_id, reason=reason)
    return run, news


def _recorded(services: Services, run_id: str, reason: str) -> tuple[Run, bool]:
    for number in range(TRIES):
        before = services.runs.load(run_id)
        refuse_if_over(before)
        now = services.clock.now()
        after = record(before, CancelRequested(reason), now, Site(services.zones, services.timings))
        if after == before:
            return before, False
        try:
            return services.runs.save(before, replace(after, due_at=None if after.status.final else now)), True
        except (LostRace, Contention, OutcomeUnknown):  # read again: it may even be our own write
            time.sleep(PAUSE_S * number)
    raise LostRace(f"run {run_id} changed under {TRIES} tries to cancel it: try again")
