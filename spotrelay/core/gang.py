"""What is different for an attempt of several machines: what befalls one of them befalls all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, EXIT_PARTED, ExitReport
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus, machine_on, note, with_attempt, with_machine
from spotrelay.core.site import Site

PARTING = 2.0  # settles for which the cause of a parting is waited for


def absorb_beats(run: Run, generation: int, now: datetime) -> Run:
    """The run with the first sign of life of each of a gang's machines."""
    attempt = run.attempt(generation)
    assert attempt is not None
    after = attempt
    for node, machine in enumerate(attempt.members):
        if machine.beating_at is None and run.heartbeat(generation, node) is not None:
            after = with_machine(after, replace(machine, beating_at=now))
    return run if after == attempt else with_attempt(run, after)


def noticed_too(run: Run, attempt: Attempt, instance_id: str, deadline: datetime) -> Run:
    """A notice for one more machine of a gang that drains or is over: that one is EC2's to end as well."""
    machine = machine_on(attempt, instance_id)
    if not attempt.members or machine.deadline is not None:
        return run
    noticed = with_machine(attempt, replace(machine, deadline=deadline))
    earliest = min(deadline, attempt.deadline or deadline)
    return with_attempt(run, replace(noticed, deadline=earliest))


def is_moot(report: ExitReport, attempt: Attempt) -> bool:
    """Whether a report of a gang's further machine says nothing: the first one speaks of the end of all."""
    return report.node > 0 and report.stage == "program" and report.code in (EXIT_DONE, EXIT_DRAINED)


def parts(report: ExitReport, attempt: Attempt) -> bool:
    """Whether a failed program may be no fault of its own: the loss of one machine breaks the programs of all."""
    return bool(attempt.members) and report.stage == "program"


def parted(run: Run, attempt: Attempt, now: datetime) -> Run:
    """The run once a program of a gang has failed; why is still to be found out."""
    if attempt.parted_at is not None:
        return run
    run = with_attempt(run, replace(attempt, parted_at=now))
    text = f"programs of attempt {attempt.generation} ended; EC2 is asked whether one of its machines is gone"
    return note(run, "parted", text, now, attempt.generation)


def has_spoken(run: Run, attempt: Attempt, instance_id: str) -> bool:
    """Whether a machine of a gang has told how its program ended, and so may end itself: that is no loss."""
    if not attempt.members or attempt.state is AttemptState.DRAINING:
        return False
    node = attempt.instance_ids.index(instance_id)
    return _has_reported(run, attempt, node)


def own_failure(run: Run, attempt: Attempt, now: datetime, site: Site) -> ExitReport | None:
    """The report that counts, once it is clear that no machine was lost: that of a cause before that of an effect."""
    since = attempt.parted_at
    if since is None or now < since + site.timings.settle * PARTING:
        return None
    asked = (m.observed_at is not None and m.observed_at > since for m in attempt.machines)
    told = (has_spoken(run, attempt, m.instance_id) for m in attempt.machines)
    if not all(a or t for a, t in zip(asked, told, strict=True)):
        return None
    reports = [r for r in run.reports if r.generation == attempt.generation and not is_moot(r, attempt)]
    return min(reports, key=lambda r: (r.code == EXIT_PARTED, r.node), default=None)


def left_behind(attempt: Attempt, now: datetime, site: Site) -> str:
    """Why a machine that EC2 did not ask for is ended while its gang drains; empty while it still works."""
    deadline = attempt.deadline
    if attempt.drained_at is None and deadline is not None and now < deadline + site.timings.after_deadline:
        return ""
    return "its gang drained, since EC2 takes another machine of it"


def is_packing(run: Run, attempt: Attempt, node: int, now: datetime, site: Site) -> bool:
    """Whether a gang's machine may still ship its log: the run succeeded when the first machine said so."""
    if run.outcome is not RunStatus.SUCCEEDED or not attempt.members or run.ended_at is None:
        return False
    return not _has_reported(run, attempt, node) and now < run.ended_at + site.timings.settle


def _has_reported(run: Run, attempt: Attempt, node: int) -> bool:
    return any((r.generation, r.node) == (attempt.generation, node) for r in run.reports)


def parting_moments(run: Run, attempt: Attempt, site: Site) -> Iterator[datetime]:
    """When something is to be looked at again because machines of one attempt end at different times."""
    settle = site.timings.settle
    if attempt.parted_at is not None and not attempt.over:
        yield from (attempt.parted_at + settle * factor for factor in (1.0, PARTING, 2 * PARTING))
    if attempt.members and run.outcome is RunStatus.SUCCEEDED and run.ended_at is not None:
        yield run.ended_at + settle
