"""What a person wishes of a run: written on its row before anybody is told, under the version that was read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from spotrelay.console.exits import Refused
from spotrelay.console.submit import hint
from spotrelay.console.wiring import Services
from spotrelay.core.errors import Contention, LostRace, OutcomeUnknown
from spotrelay.core.facts import Fact, PauseRequested, ResumeRequested, RetryRequested
from spotrelay.core.lifecycle import why_no_pause, why_no_resume, why_no_retry
from spotrelay.core.record import record
from spotrelay.core.run import Run
from spotrelay.core.site import Site
from spotrelay.core.spending import spent

DUE = "Run Due"  # brings no fact: one that comes late or twice repeats no wish
TRIES = 8
PAUSE_S = 0.1


def pause(services: Services, run_id: str, reason: str) -> tuple[Run, bool]:
    """Let a run rest once its state is saved; the run, and whether that was news.

    Raises:
        UnknownRun: there is none.
        Refused: it is over.
        LostRace: the row changed under every try; try again.
    """
    return _wish(services, run_id, PauseRequested(reason), why_no_pause)


def resume(services: Services, run_id: str) -> tuple[Run, bool]:
    """Let a paused run go on; the run, and whether that was news. Errors as `pause`."""
    return _wish(services, run_id, ResumeRequested(), why_no_resume)


def retry(services: Services, run_id: str, reason: str) -> tuple[Run, bool]:
    """Open a run again that failed or was cancelled; the run, and True.

    Raises:
        UnknownRun: there is none.
        Refused: it has succeeded, is not over, or has used up what its spec allows.
        LostRace: the row changed under every try; try again.
    """
    return _wish(
        services, run_id, RetryRequested(reason), lambda run: why_no_retry(run, spent(run, services.clock.now()))
    )


def recorded(services: Services, run_id: str, fact: Fact, check: Callable[[Run], None]) -> tuple[Run, bool]:
    """Write a wish on the run's row; the run, and whether that was news.

    Args:
        check: raises where the wish is to be refused, once for each version that is read.
    """
    unclear: Run | None = None  # what was written, perhaps
    for number in range(TRIES):
        before = services.runs.load(run_id)
        if unclear is not None and before == replace(unclear, version=before.version):
            return before, True
        check(before)
        now = services.clock.now()
        after = record(before, fact, now, Site(services.zones, services.timings))
        if after == before:
            return before, False
        after = replace(after, due_at=None if after.status.final else now)
        try:
            return services.runs.save(before, after), True
        except (LostRace, Contention, OutcomeUnknown) as error:  # read again: it may even be our own write
            unclear = replace(after, news=()) if isinstance(error, OutcomeUnknown) else None
            time.sleep(PAUSE_S * number)
    raise LostRace(f"run {run_id} changed under {TRIES} tries to write on it: try again")


def _wish(services: Services, run_id: str, fact: Fact, why_not: Callable[[Run], str]) -> tuple[Run, bool]:
    def check(run: Run) -> None:
        if refusal := why_not(run):
            raise Refused(f"{refusal}. Nothing was changed")

    run, news = recorded(services, run_id, fact, check)
    if news:
        hint(services, DUE, run_id=run_id)
    return run, news
