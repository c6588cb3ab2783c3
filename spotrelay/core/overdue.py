"""Whether a run trains without anything new that it could be resumed from."""

from __future__ import annotations

from datetime import datetime, timedelta

from spotrelay.core.checkpoint import resume_candidate
from spotrelay.core.run import AttemptState, Run

INTERVALS = 3  # of the longest that the spec allows, until somebody should look; but no more than
GRACE = timedelta(hours=1)  # longer than one of them


def longest_interval(run: Run) -> timedelta | None:
    """The longest time between two checkpoints that the spec allows; None when it counts steps."""
    cadence = run.spec.cadence
    if cadence.every_steps is not None:
        return None
    return timedelta(seconds=cadence.ceiling_s if cadence.every_s is None else cadence.every_s)


def overdue_since(run: Run, now: datetime, scale: float) -> datetime | None:
    """Since when the newest verified checkpoint, or the first step, is the last progress that is safe.

    None while that is not overdue: no attempt trains, or it is younger than three of the longest intervals, or than
    one and an hour.

    Args:
        scale: how much faster than in production time passes.
    """
    current, interval = run.current, longest_interval(run)
    if current is None or current.state is not AttemptState.RUNNING or current.first_step_at is None or not interval:
        return None
    newest = resume_candidate(run.checkpoints)
    checked_at = newest.verdict.checked_at if newest is not None and newest.verdict is not None else None
    since = max(current.first_step_at, checked_at or current.first_step_at)
    return since if now - since > min(INTERVALS * interval, interval + GRACE) * scale else None
