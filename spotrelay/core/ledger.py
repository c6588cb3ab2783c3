"""Where a run's wall time went: goodput, and badput by cause. By the control plane's clock alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from spotrelay.core.run import Attempt, Run

NOTHING = timedelta(0)


@dataclass(frozen=True)
class Recovery:
    """One loss of a machine, and what it cost."""

    lost_generation: int
    next_generation: int
    steps_lost: int | None  # steps done by the lost attempt and done again; None while unknown
    rto: timedelta | None  # from the end of training to the next attempt's first new step
    cause: str  # why the attempt ended


@dataclass(frozen=True)
class Ledger:
    """A run's time, each second in one place."""

    wall: timedelta  # from submission to the end, or to now, pauses left out
    badput: dict[str, timedelta]  # waiting, booting, restoring, repeating, idle
    recoveries: tuple[Recovery, ...]

    @property
    def goodput(self) -> float:
        """Share of wall time that became progress kept, 0 to 1."""
        if self.wall <= NOTHING:
            return 0.0
        lost = sum(self.badput.values(), NOTHING)
        return max(0.0, 1.0 - lost / self.wall)


def ledger_of(run: Run, now: datetime) -> Ledger:
    """Account for the run's time so far.

    Time in which an elder attempt still trained while the next one booted counts once, as
    training. Repeated steps are charged at the mean pace of the attempt that lost them.
    """
    end = run.ended_at or now
    recoveries = tuple(_recoveries(run))
    badput = dict.fromkeys(("waiting", "booting", "restoring", "repeating", "idle"), NOTHING)
    free_from = run.created_at  # nobody has trained since
    for attempt in run.attempts:
        for cause, start, stop in _phases(attempt, end):
            badput[cause] += max(stop - max(start, free_from), NOTHING)
            free_from = max(free_from, stop)
        free_from = max(free_from, _stopped(attempt, end))
    resting = now - run.paused_at if run.paused_at is not None else NOTHING
    badput["idle"] += max(end - free_from - resting, NOTHING)
    for recovery in recoveries:
        badput["repeating"] += _repeating(run, recovery, end)
    wall = end - run.created_at - run.paused_for - resting
    return Ledger(max(wall, NOTHING), badput, recoveries)


def _phases(attempt: Attempt, end: datetime) -> Iterable[tuple[str, datetime, datetime]]:
    reserved = attempt.reserved_at
    if reserved is None:
        return
    over = min(_stopped(attempt, end), end)
    launched = min(attempt.launched_at or over, over)
    running = min(attempt.running_at or over, over)
    first = min(attempt.first_step_at or over, over)
    yield "waiting", reserved, launched
    yield "booting", launched, max(running, launched)
    yield "restoring", max(running, launched), max(first, running, launched)


def _stopped(attempt: Attempt, end: datetime) -> datetime:
    """When the attempt stopped training: drained, or ended, or not yet."""
    moments = [t for t in (attempt.drained_at, attempt.ended_at) if t is not None]
    return min(moments, default=end)


def _recoveries(run: Run) -> Iterable[Recovery]:
    trained = [a for a in run.attempts if a.first_step_at is not None]
    for lost in run.attempts:
        if lost.ended_at is None and lost.drained_at is None:
            continue
        heir = next((a for a in trained if a.generation > lost.generation), None)
        if heir is None or heir.first_step_at is None or lost.first_step_at is None:
            continue
        steps = max(lost.last_step - (heir.resumed_from or 0), 0)
        rto = max(heir.first_step_at - _stopped(lost, heir.first_step_at), NOTHING)
        cause = lost.noticed_by and f"notice ({lost.noticed_by})"
        yield Recovery(lost.generation, heir.generation, steps, rto, cause or lost.ended_why)


def _repeating(run: Run, recovery: Recovery, end: datetime) -> timedelta:
    lost = run.attempt(recovery.lost_generation)
    if lost is None or lost.first_step_at is None or not recovery.steps_lost:
        return NOTHING
    done = max(lost.last_step - (lost.resumed_from or 0), 1)
    return (max(_stopped(lost, end) - lost.first_step_at, NOTHING) / done) * min(recovery.steps_lost, done)
