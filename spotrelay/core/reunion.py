"""The survivors of a gang that lost machines: kept warm, for a bounded time, until others join them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spotrelay.core.lifecycle import machines_so_far
from spotrelay.core.placement import FailureScope, Pool, Refusal, Rung, closed
from spotrelay.core.room import room_left, size_of_one
from spotrelay.core.run import Attempt, Intent, Member, Run, machine_on, with_attempt, with_machine
from spotrelay.core.site import Site


@dataclass(frozen=True)
class Reunion:
    """Machines that wait, and for how many others."""

    pool: Pool  # where all of them are
    keeps: tuple[str, ...]  # ids, by rank
    missing: int
    until: datetime


def reunion(run: Run, now: datetime, site: Site) -> Reunion | None:
    """The survivors of the newest gang while it is worth keeping them; None where it is not, or nothing is lost.

    Only a gang that has trained is reunited: one that never came so far moves as a whole.
    """
    broken = next((a for a in reversed(run.attempts) if a.members), None)
    if run.spec.nodes == 1 or run.outcome is not None or run.paused or broken is None or not _may_reunite(broken):
        return None
    if not _has_room(run):
        return None
    since = broken.noticed_at or broken.ended_at
    if since is None or broken.pool is None:
        return None
    until = since + timedelta(seconds=run.spec.reunion_s) * site.timings.scale
    keeps = tuple(machine.instance_id for machine in broken.members if stays(machine))
    joined = run.intent is not None and bool(run.intent.keeps)  # a launch for them is open
    if not 0 < len(keeps) < run.spec.nodes or (not joined and (now >= until or _is_vain(broken.pool, run, now, site))):
        return None
    return Reunion(broken.pool, keeps, run.spec.nodes - len(keeps), until)


def _may_reunite(broken: Attempt) -> bool:
    return broken.running_at is not None and not broken.crashed and not broken.let_go


def _has_room(run: Run) -> bool:
    """Whether the row can name the same machines once more, and every gang that may still be launched as a whole."""
    rest = max(run.spec.limits.max_launches - machines_so_far(run), 0) / run.spec.nodes
    return size_of_one(run) * (1 + rest) <= room_left(run)


def _is_vain(pool: Pool, run: Run, now: datetime, site: Site) -> bool:
    """Whether more than the pool itself refuses, such as a quota: then waiting machines only stand in the way."""
    return any(r.scope is not FailureScope.POOL for r in _noes(pool, run, now, site))


def _noes(pool: Pool, run: Run, now: datetime, site: Site) -> list[Refusal]:
    return [r for r in run.refusals if closed((pool,), (r,), now, site.timings.scale)]


def stays(machine: Member) -> bool:
    """Whether nobody has asked for this machine, so that it may serve the next attempt."""
    asked = (machine.deadline, machine.ending_at, machine.terminate_asked_at)
    return machine.live and machine.beating_at is not None and not any(asked)


def waits(run: Run, instance_id: str, now: datetime, site: Site) -> bool:
    """Whether this machine is one of those that wait."""
    found = reunion(run, now, site)
    return found is not None and instance_id in found.keeps


def rung_of(found: Reunion, run: Run, now: datetime, site: Site) -> Rung | datetime:
    """The launch that fills the gang up, or when it may be tried again."""
    again = max((r.at for r in _noes(found.pool, run, now, site)), default=None)
    if again is not None and now < again + site.timings.backoff:
        return again + site.timings.backoff
    why = f"{found.missing} more {found.pool.instance_type} in {found.pool.zone}, to join {len(found.keeps)} that wait"
    return Rung((found.pool,), why, found.missing, run.spec.placement_group, found.keeps)


def taken_over(run: Run, intent: Intent, now: datetime) -> tuple[Run, tuple[Member, ...]]:
    """The run once the survivors have left their old attempt, and those that still can go over, by rank."""
    elder = next((a for a in reversed(run.attempts) if set(intent.keeps) & set(a.instance_ids)), None)
    if elder is None:
        return run, ()
    going = [m for m in elder.members if m.instance_id in intent.keeps and stays(m)]
    for machine in going:
        elder = with_machine(elder, replace(machine_on(elder, machine.instance_id), machine_gone_at=now))
    return with_attempt(run, elder), tuple(Member(m.instance_id, now) for m in going)
