"""What a person may wish of a run beside its end: that it rests, goes on, or opens again. Every function is pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from spotrelay.core.facts import DrainAsked
from spotrelay.core.notice import NoticeSource
from spotrelay.core.placement import FailureScope
from spotrelay.core.room import why_full
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus, note, with_attempt
from spotrelay.core.site import Site

REOPENED = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})


def why_no_pause(run: Run) -> str:
    """Why this run cannot be paused now; empty when it can, or is paused already."""
    return _over(run) and f"run {run.run_id} {_over(run)}: there is nothing to pause"


def why_no_resume(run: Run) -> str:
    """Why this run cannot go on from a pause; empty when it can, or goes on already."""
    over = _over(run)
    return over and f"run {run.run_id} {over}: only `spotrelay retry` opens a run again that failed or was cancelled"


def why_no_retry(run: Run, spent: float) -> str:
    """Why this run cannot open again; empty when it can.

    Args:
        spent: dollars so far. A person may give a run new launches, failures and hours, never new dollars.
    """
    name, most = f"run {run.run_id}", run.spec.limits.max_dollars
    if run.outcome is not None and not run.status.final:
        return f"{name} is ending ({run.outcome_why}): wait until its machine is gone, then try again"
    if run.paused:
        return f"{name} is {run.status.value}: `spotrelay resume {run.run_id}` lets it go on"
    if not run.status.final:
        return f"{name} is not over, it is {run.status.value}: there is nothing to retry"
    if run.status not in REOPENED:
        return f"{name} has {run.status.value}: there is nothing left to do"
    if most is not None and spent >= most:
        return f"{name} has spent {spent:.2f} of its limits.max_dollars, {most:.2f}: submit it anew with more"
    full = why_full(run)
    return full and f"{name}: {full}"


def pause(run: Run, why: str, now: datetime) -> Run:
    """The run once a person wants it to rest. Its machine still has to save and to go."""
    if run.paused or why_no_pause(run):
        return run
    return note(replace(run, paused_at=now, pause_why=why, retry_at=None), "pause", f"to be paused: {why}", now)


def resume(run: Run, now: datetime) -> Run:
    """The run once it may go on. It starts as after a loss: from its newest verified checkpoint."""
    if run.paused_at is None or why_no_resume(run):
        return run
    current = run.current
    let_go = current is not None and (current.over or current.let_go)
    run = replace(awake(run, now), excused=current.generation if current and let_go else run.excused)
    return note(run, "resume", "no longer paused", now)


def awake(run: Run, now: datetime) -> Run:
    """The run without its pause, the time of which counts for no limit."""
    if run.paused_at is None:
        return run
    rested = max(now - run.paused_at, timedelta(0))
    return replace(
        run,
        paused_at=None,
        pause_why="",
        paused_for=run.paused_for + rested,
        hours_from=(run.hours_from or run.created_at) + rested,
        upkeep=replace(run.upkeep, due_at=now) if run.upkeep.due_at is not None else run.upkeep,
    )


def retry(run: Run, why: str, spent: float, now: datetime) -> Run:
    """The run open again: no failure counts any more, launches and hours are counted from here."""
    if why_no_retry(run, spent):
        return run
    newest = run.current.generation if run.current else 0
    for attempt in run.attempts:
        if not attempt.over:
            ended = replace(attempt, state=AttemptState.ENDED, ended_at=now, ended_why="the run ended first")
            run = with_attempt(run, ended)
    rested = max(now - (run.ended_at or now), timedelta(0))
    upkeep = replace(run.upkeep, due_at=now) if run.upkeep.begun else run.upkeep
    run = replace(
        run,
        outcome=None, outcome_why="", cancel_why=None, ended_at=None, retry_at=None, verify_at=None, silence=None,
        failures=0, backoffs=0, broke_until=None, silences=(),
        refusals=tuple(r for r in run.refusals if r.scope is not FailureScope.CONFIGURATION),
        paused_for=run.paused_for + rested, hours_from=now, opened_after=newest, excused=newest,
        recheck_after=now, upkeep=upkeep,
    )  # fmt: skip
    return note(run, "retry", f"opened again: {why}", now)


def drain_asked(run: Run, attempt: Attempt, fact: DrainAsked, now: datetime, site: Site) -> Run:
    """The run once its attempt was asked to save, to give the lease back and to end."""
    if leaves_its_host(attempt):
        return with_attempt(run, replace(attempt, asked_at=now))
    if attempt.state is not AttemptState.RUNNING:
        return run
    asked = replace(
        attempt, state=AttemptState.DRAINING, noticed_at=now, noticed_by=fact.by, deadline=now + site.timings.drain
    )
    run = replace(with_attempt(run, asked), recheck_after=now)
    return note(
        run, "drain", f"attempt {attempt.generation} was asked to drain: {fact.why or fact.by}", now, attempt.generation
    )


def leaves_its_host(attempt: Attempt) -> bool:
    """Whether a person wants the host of this attempt empty, and it has not been asked to go yet.

    Only an attempt that sends heartbeats can be asked: it finds the word in the answer to one.
    """
    drains = attempt.state is AttemptState.DRAINING and attempt.noticed_by == NoticeSource.DRAIN.value
    return drains and attempt.asked_at is None and attempt.beating_at is not None


def why_let_go(run: Run, attempt: Attempt, now: datetime) -> str:
    """Why the machine of an attempt that was asked to drain may go now; empty while it still saves."""
    if run.paused and attempt.state is AttemptState.BOOTING:
        return "the run is paused, and it has nothing to save"
    if not attempt.let_go or attempt.state is not AttemptState.DRAINING:
        return ""
    if attempt.drained_at is not None:
        return f"attempt {attempt.generation} has drained: {attempt.noticed_by}"
    if attempt.deadline is not None and now >= attempt.deadline:
        return f"attempt {attempt.generation} has not drained in time: {attempt.noticed_by}"
    return ""


def hours_end(run: Run) -> datetime | None:
    """When limits.max_hours is reached; None while the run is paused."""
    if run.paused:
        return None
    return (run.hours_from or run.created_at) + timedelta(hours=run.spec.limits.max_hours)


def machines_so_far(run: Run) -> int:
    """Machines that count for limits.max_launches: a request that EC2 refused cost nothing."""
    return len({each for a in run.attempts if a.generation > run.opened_after for each in a.instance_ids})


def _over(run: Run) -> str:
    if run.outcome is not None and not run.status.final:
        return f"is ending ({run.outcome_why})"
    return f"has ended already: {run.status.value}" if run.status.final else ""
