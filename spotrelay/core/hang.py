"""A program that shows life and gets nowhere: its heartbeat goes on, and no step ends any more. Pure.

Conservative, since whoever errs here ends a healthy program: only signs that the program itself gives are counted
(steps, `run.alive()`, waiting for a save), only while it says that it trains, only after its first new step, and
only across successful looks, as with silence.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from spotrelay.core.clockwork import OBSERVATIONS
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.run import Attempt, AttemptState, Progress, Run, note, with_attempt
from spotrelay.core.silence import looked_again
from spotrelay.core.site import Site

FLOOR = timedelta(minutes=30)  # whatever was measured: a first validation may take so long
TIMES = 10.0  # as long as the longest pause between two signs that this run has survived


def bound(run: Run, scale: float = 1.0) -> timedelta | None:
    """For how long a program may show no sign of progress; None when nobody wants to judge that."""
    wanted = run.spec.hang_minutes
    if wanted is not None:
        return timedelta(minutes=wanted) * scale if wanted > 0 else None
    longest = max((beat.longest_s for beat in run.heartbeats), default=0.0)
    return max(FLOOR * scale, timedelta(seconds=TIMES * longest))


def looked(run: Run, now: datetime, site: Site) -> Run:
    """The run after one more look at how far its program has come."""
    attempt = run.current
    beat = run.heartbeat(attempt.generation) if attempt is not None else None
    if attempt is None or beat is None or not (_judged(attempt) and _counts(beat)):
        return run if run.progress is None else replace(run, progress=None)
    fresh, old = Progress(attempt.generation, beat.signs, since=now, last_look=now), run.progress
    if old is None or (old.generation, old.signs) != (attempt.generation, beat.signs):
        return _moves_on(replace(run, progress=fresh), attempt, now)
    return replace(run, progress=looked_again(old, fresh, site))


def stands_still(run: Run, attempt: Attempt, now: datetime, site: Site) -> timedelta | None:
    """How long this attempt has shown no progress, if that is longer than it may."""
    seen, most = run.progress, bound(run, site.timings.scale)
    if seen is None or most is None or seen.generation != attempt.generation or not _judged(attempt):
        return None
    lasts = now - seen.since
    return lasts if seen.looks >= OBSERVATIONS and lasts >= most else None


def why_hung(run: Run, attempt: Attempt, now: datetime, site: Site) -> str:
    """Why the machine of a program that gets nowhere is ended; empty until its stacks had time to be written."""
    lasts = stands_still(run, attempt, now, site)
    if lasts is None or attempt.hung_at is None or now < attempt.hung_at + site.timings.settle * 4:
        return ""
    return (
        f"it hangs: heartbeats come, and nothing has followed step {attempt.last_step} for "
        f"{lasts.total_seconds() / 60:.0f} minutes; the stacks are in its log"
    )


def suspected(run: Run, generation: int, now: datetime) -> Run:
    """The run once an attempt that gets nowhere was asked for its stacks."""
    attempt = run.attempt(generation)
    if attempt is None or attempt.over or attempt.hung_at is not None:
        return run
    text = f"attempt {generation} stands still after step {attempt.last_step}; it was asked for its stacks"
    return note(with_attempt(run, replace(attempt, hung_at=now)), "hang", text, now, generation)


def _moves_on(run: Run, attempt: Attempt, now: datetime) -> Run:
    if attempt.hung_at is None:
        return run
    run = with_attempt(run, replace(attempt, hung_at=None))
    return note(run, "moves-on", f"attempt {attempt.generation} goes on by itself", now, attempt.generation)


def _counts(beat: Heartbeat) -> bool:
    """Whether the program says that it trains, and has begun to count its signs."""
    return beat.signs > 0 and beat.phase is Phase.TRAINING and beat.first_step


def _judged(attempt: Attempt) -> bool:
    return attempt.state is AttemptState.RUNNING and attempt.live and attempt.terminate_asked_at is None
