"""`spotrelay status`: the runs, or one of them closely."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

from spotrelay.console import standing
from spotrelay.console.output import ago, lasting, table, tell
from spotrelay.console.wiring import Services
from spotrelay.core.breaker import is_kept, kept_until
from spotrelay.core.ledger import ledger_of
from spotrelay.core.run import Attempt, Run, RunStatus


def listed(services: Services, most: int) -> list[dict[str, Any]]:
    """The newest runs, each as one flat object."""
    return [summary(run, services.clock.now()) for run in islice(services.runs.all_runs(), most)]


def summary(run: Run, now: datetime) -> dict[str, Any]:
    """A run in one line: the keys are stable."""
    current = run.current
    return {
        "run_id": run.run_id,
        "status": run.status.value,
        "step": max((a.last_step for a in run.attempts), default=0),
        "attempts": len(run.attempts),
        "launches": run.launches,
        "pool": str(current.pool) if current and current.pool else None,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
        "age_s": round((now - run.created_at).total_seconds(), 1),
        "why": run.outcome_why or run.pause_why or None,
    }


def closely(run: Run, now: datetime) -> dict[str, Any]:
    """A run with its standing, attempts, checkpoints and ledger: the keys are stable."""
    beat = max(run.heartbeats, key=lambda h: h.generation, default=None)
    books = ledger_of(run, now)
    return {
        **summary(run, now),
        "step": max([beat.step if beat else 0, *(a.last_step for a in run.attempts)]),
        "total": beat.total if beat and beat.total else None,
        "loss": beat.loss if beat else None,
        "phase": beat.phase.value if beat else None,
        "trouble": (beat.trouble or None) if beat else None,
        "due_at": run.due_at,
        **standing.standing(run, now),
        "goodput": round(books.goodput, 4),
        "badput_s": {cause: round(span.total_seconds(), 1) for cause, span in books.badput.items()},
        "recoveries": [
            {
                "lost_generation": r.lost_generation,
                "next_generation": r.next_generation,
                "steps_lost": r.steps_lost,
                "rto_s": round(r.rto.total_seconds(), 1) if r.rto is not None else None,
                "cause": r.cause,
            }
            for r in books.recoveries
        ],
        "attempts": [_attempt(a, run, now) for a in run.attempts],
        "checkpoints": [
            {
                "id": str(c.id),
                "step": c.commit.step,
                "state": c.state,
                "reason": c.commit.reason.value,
                "health": c.commit.health.value,
                "bytes": c.commit.size,
                "problem": (c.verdict.problem or None) if c.verdict else None,
            }
            for c in run.checkpoints
        ],
    }


def _attempt(attempt: Attempt, run: Run, now: datetime) -> dict[str, Any]:
    return {
        "generation": attempt.generation,
        "state": attempt.state.value,
        "instance_id": attempt.instance_id,
        "machines": list(attempt.instance_ids),
        "pool": str(attempt.pool) if attempt.pool else None,
        "resumed_from": attempt.resumed_from,
        "last_step": attempt.last_step,
        "ended": attempt.ended_why or None,
        "kept_until": kept_until(run, attempt) if attempt.live and is_kept(run, attempt, now) else None,
    }


def failed(run: Run) -> bool:
    """Whether a script should hear of it as a failure."""
    return run.status in (RunStatus.FAILED, RunStatus.CANCELLED)


def show_list(runs: list[dict[str, Any]], now: datetime) -> None:
    """The list for a person."""
    rows = [
        (r["run_id"], r["status"], str(r["step"]), str(r["attempts"]), r["pool"] or "-", ago(r["created_at"], now))
        for r in runs
    ]
    table(("RUN", "STATUS", "STEP", "ATTEMPTS", "POOL", "SUBMITTED"), rows)


def show(about: dict[str, Any], run: Run, now: datetime) -> None:
    """One run for a person."""
    of = f" of {about['total']}" if about["total"] else ""
    loss = f", loss {about['loss']:.4f}" if about["loss"] is not None else ""
    tell(f"run {run.run_id}: {run.status.value}" + (f" ({why})" if (why := run.outcome_why or run.pause_why) else ""))
    tell(f"step {about['step']}{of}{loss}; submitted {ago(run.created_at, now)}; goodput {about['goodput']:.1%}")
    if about["trouble"]:
        tell(f"trouble: {about['trouble']}")
    if not run.status.final and run.due_at is not None:
        wait = run.due_at - now
        tell("looked at next: " + ("now" if wait.total_seconds() <= 0 else f"in {lasting(wait)}"))
    for line in standing.lines(about, now):
        tell(line)
    for attempt in about["attempts"]:
        start = f"from step {attempt['resumed_from']}" if attempt["resumed_from"] is not None else "from the start"
        end = f" - {attempt['ended']}" if attempt["ended"] else ""
        where = f"{', '.join(attempt['machines']) or 'no machine yet'} in {attempt['pool'] or '-'}"
        if attempt["kept_until"]:
            end += f"; its machine stays (and costs) for {lasting(attempt['kept_until'] - now)}, for debugging"
        tell(f"  attempt {attempt['generation']}: {attempt['state']}, {where}, {start} to {attempt['last_step']}{end}")
    for point in about["checkpoints"][:5]:
        problem = f" - {point['problem']}" if point["problem"] else ""
        tell(f"  checkpoint {point['id']}: step {point['step']}, {point['state']} ({point['reason']}){problem}")
