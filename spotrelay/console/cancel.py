"""`spotrelay cancel`: the wish is written on the run before anybody is told."""

from __future__ import annotations

from spotrelay.console.submit import hint, refuse_if_over
from spotrelay.console.wiring import Services
from spotrelay.console.wishes import recorded
from spotrelay.core.facts import CancelRequested
from spotrelay.core.run import Run

CANCEL = "Run Cancel Requested"


def cancel(services: Services, run_id: str, reason: str) -> tuple[Run, bool]:
    """Record the wish; the run, and whether it was news.

    Raises:
        UnknownRun: there is none.
        AlreadyEnded: it has a final status.
        LostRace: the row changed under every try; try again.
    """
    run, news = recorded(services, run_id, CancelRequested(reason), refuse_if_over)
    hint(services, CANCEL, run_id=run_id, reason=reason)
    return run, news
