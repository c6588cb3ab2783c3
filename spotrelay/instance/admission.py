"""Whether this machine may start the run's program at all."""

from __future__ import annotations

import threading

from spotrelay.core.errors import UnknownRun
from spotrelay.core.ports import LiveStore
from spotrelay.core.run import Run
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.patience import keep_trying


class NotMine(Exception):
    """This machine must not run the attempt, and says nothing about it."""


def admitted(me: Identity, live: LiveStore, stop: threading.Event, logbook: Logbook) -> Run:
    """The run as its row stands, where this machine may work on it.

    Raises:
        NotMine: it may not, or there is no such run.
        StopAsked: the machine is being ended.
        SpotrelayError: the row cannot be read for longer than a machine may take to boot.
    """
    timings = me.timings
    try:
        run = keep_trying(lambda: live.read_run(me.run_id), timings.boot, timings.poll / 5, stop, logbook.say)
    except UnknownRun as error:
        raise NotMine(str(error)) from error
    reason = why_not(run, me)
    if reason is not None:
        raise NotMine(reason)
    return run


def why_not(run: Run, me: Identity) -> str | None:
    """The reason for which this machine must not start; None when it may.

    A machine that is refused says nothing about the attempt: another one may be running it.
    """
    attempt = run.attempt(me.generation)
    if attempt is None:
        return f"run {run.run_id} has no attempt {me.generation}"
    if attempt.instance_id is not None and me.instance_id not in attempt.instance_ids:
        machines = ", ".join(attempt.instance_ids)
        return f"attempt {me.generation} of run {run.run_id} has the machine {machines}, not {me.instance_id}"
    if run.outcome is not None or run.status.final:
        word = (run.outcome or run.status).value
        return f"run {run.run_id} has {word}: there is nothing left to do"
    if attempt.over:
        return f"attempt {me.generation} of run {run.run_id} has ended ({attempt.ended_why or 'no reason recorded'})"
    lease = run.lease
    if lease is not None and me.generation < max(lease.floor, lease.generation):
        return f"attempt {me.generation} of run {run.run_id} has been replaced by {max(lease.floor, lease.generation)}"
    return None
