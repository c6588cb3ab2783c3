"""When attempts fail in a row: what a person is told, and how long a failed machine stays for them. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from spotrelay.core.run import Attempt, Run, RunStatus

TAIL_LINES = 12
TAIL_LENGTH = 1200  # characters; the row holds the message


def died_young(run: Run, attempt: Attempt) -> bool:
    """Whether the loss of a machine counts as a failure: nobody took it, and it hung or never came to a step.

    One that never sent a heartbeat counts at once. One that did may have been bad luck, unless the attempt before it
    ended in the same way.
    """
    if attempt.hung_at is not None:
        return True  # whatever made it hang may do so again, and again at no step further
    if attempt.noticed_at is not None or attempt.first_step_at is not None:
        return False
    if attempt.beating_at is None:
        return True
    elder = run.attempt(attempt.generation - 1)
    return elder is not None and elder.over and elder.noticed_at is None and elder.first_step_at is None


def protected(run: Run, how: str, tail: str) -> str:
    """What is told of a run in which too much has failed in a row: the last reason, the log's end, and the remedy.

    Args:
        how: what ended the last attempt.
        tail: the end of its log, if it could send one.
    """
    current = run.current
    number = current.generation if current is not None else 0
    head = f"{run.failures} failures in a row without a new step; the last: attempt {number}: {how}"
    remedy = f"Mend the cause, then: spotrelay retry {run.run_id}"
    if not tail.strip():
        machine = current.instance_id if current is not None else None
        look = f"aws ec2 get-console-output --latest --instance-id {machine}" if machine else "spotrelay doctor"
        return f"{head}. It sent no log; perhaps {look} says more. {remedy}"
    return f"{head}. The end of its log:\n{_end_of(tail)}\nAll of it: spotrelay logs {run.run_id}. {remedy}"


def kept_until(run: Run, attempt: Attempt) -> datetime | None:
    """Until when the machine of a failed attempt stays for a person to look at; None when it goes at once.

    At most one stays, the newest; it is fenced like every attempt that is over.
    """
    kept = run.spec.keep_failed_minutes
    newest = max((a.generation for a in run.attempts if a.crashed), default=0)
    wanted = run.outcome in (None, RunStatus.FAILED) and not run.paused
    if kept <= 0 or not attempt.crashed or attempt.ended_at is None or attempt.members or not wanted:
        return None
    return attempt.ended_at + timedelta(minutes=kept) if attempt.generation == newest else None


def is_kept(run: Run, attempt: Attempt, now: datetime) -> bool:
    """Whether a failed machine still stays."""
    until = kept_until(run, attempt)
    return until is not None and now < until


def last_line(tail: str) -> str:
    """The last line of a log, not too long."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def _end_of(tail: str) -> str:
    lines = [line.rstrip() for line in tail.splitlines() if line.strip()][-TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)[-TAIL_LENGTH:]
