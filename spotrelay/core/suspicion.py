"""What an operator should hear of a run that goes on: machines that should not be there, and life without progress."""

from __future__ import annotations

from datetime import datetime, timedelta

from spotrelay.core.breaker import is_kept
from spotrelay.core.hang import stands_still
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.site import Site

FIRST_STEP = timedelta(hours=1)  # from the lease to the first new step, until somebody should look


def surplus(run: Run, now: datetime, site: Site) -> tuple[Attempt, ...]:
    """Attempts whose machine lives beside the one that should, and for which there is no explanation any more.

    A handover has two for minutes, and so has a machine that EC2 takes its time to end. The lease lets only one commit
    whatever happens: these cost money, and say that something does not end as it should.
    """
    patience = site.timings.hopeless
    return tuple(a for a in run.live if not is_kept(run, a, now) and now > _explained_until(run, a, now) + patience)


def without_progress(run: Run, now: datetime, site: Site) -> timedelta | None:
    """For how long the attempt that trains has shown life and no progress, where that is longer than it may be."""
    current = run.current
    if current is None or current.state is not AttemptState.RUNNING or not current.live or run.outcome is not None:
        return None
    if current.first_step_at is None and current.running_at is not None:
        lasts = now - current.running_at
        return lasts if lasts > FIRST_STEP * site.timings.scale else None
    return stands_still(run, current, now, site)


def _explained_until(run: Run, attempt: Attempt, now: datetime) -> datetime:
    if attempt.over:
        return attempt.ended_at or now
    if run.outcome is not None:
        return run.ended_at or now
    if attempt.deadline is not None:
        return attempt.deadline
    heir = next((a for a in run.attempts if a.generation > attempt.generation and a.launched_at is not None), None)
    return now if heir is None or heir.launched_at is None else heir.launched_at
