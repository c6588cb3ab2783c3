"""When a checkpoint is looked for in the replicas of the bucket, and where it may be read from. Pure.

A replica is never waited for, and never believed: what is not complete there is read at home, and what
turns out to be damaged there says nothing about the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from spotrelay.core.checkpoint import Checkpoint, resume_candidate
from spotrelay.core.decisions import Compare
from spotrelay.core.facts import Compared
from spotrelay.core.replica import Replica
from spotrelay.core.run import Attempt, AttemptState, Run, note
from spotrelay.core.site import Site
from spotrelay.core.spec import pools_of

NO_ANSWER = "it has not answered"
TICK = timedelta(microseconds=1)


def compare(run: Run, now: datetime, site: Site) -> Compare | None:
    """A look at the replicas where the checkpoint to resume from may be read next."""
    candidate = _candidate(run)
    if not site.replicas or candidate is None or run.outcome is not None or run.paused:
        return None
    wanted = _regions_wanted(run, site)
    due = tuple(
        (region, bucket)
        for region, bucket in site.replicas
        if region in wanted and _is_due(run, region, candidate, now, site)
    )
    return Compare(candidate, due, f"whether checkpoint {candidate.id} is complete in a replica") if due else None


def next_looks(run: Run, site: Site) -> Iterator[datetime]:
    """When a replica is looked at again because an attempt is about to restore beside it."""
    for region, _ in site.replicas:
        known = replica_in(run, region)
        if known is None or known.complete or known.checked_at is None:
            continue
        if _awaited_in(run, region) is not None:
            yield known.checked_at + _pause(run, known, site)


def looking(run: Run, decision: Compare, now: datetime) -> Run:
    """The run with these looks begun: who dies over one leaves the replica alone for a while."""
    at = now if run.recheck_after is None else max(now, run.recheck_after + TICK)  # another function's clock told that
    for region, bucket in decision.replicas:
        wanted = str(decision.checkpoint.id)
        before = replica_in(run, region)
        if before is None or before.checkpoint != wanted or before.bucket != bucket:
            before = Replica(region, bucket, wanted, problem=NO_ANSWER)
        run = _with(run, replace(before, checked_at=at, looks=before.looks + 1))
    return run


def compared(run: Run, fact: Compared, now: datetime) -> Run:
    """The run with what a look found; a line where an attempt is about to restore there."""
    before = replica_in(run, fact.region)
    if before is None or before.checkpoint != fact.checkpoint:
        return run  # a newer one is looked for by now
    waiting = _awaited_in(run, fact.region)
    known = waiting is None or (waiting.generation == before.told and not fact.complete)
    told = before.told if waiting is None or fact.complete else waiting.generation
    looks = 0 if fact.complete else before.looks
    run = _with(run, replace(before, complete=fact.complete, problem=fact.problem, looks=looks, told=told))
    if waiting is None or known:
        return run
    name = f"checkpoint {fact.checkpoint}"
    text = f"{name} is complete in the replica in {fact.region}: attempt {waiting.generation} may read it there"
    if not fact.complete:
        text = f"{name} is read at home: the replica in {fact.region} does not have it whole: {fact.problem}"
    about = {"checkpoint": fact.checkpoint, "region": fact.region, "complete": fact.complete}
    return note(run, "replica", text, now, waiting.generation, **about)


def replica_in(run: Run, region: str) -> Replica | None:
    """What was last found in this region's replica."""
    return next((each for each in run.replicas if each.region == region), None)


def replica_of(run: Run, checkpoint: Checkpoint, region: str) -> Replica | None:
    """What is known of this checkpoint in a region's replica: where to read, or why not there; None: there is none.

    However long ago that was: whoever reads there proves every byte, and takes from home what has gone since.
    """
    known = replica_in(run, region)
    if known is None:
        return None
    if known.checkpoint != str(checkpoint.id):
        return replace(known, complete=False, problem=f"checkpoint {checkpoint.id} was not looked for there yet")
    return known


def regions_with(run: Run, site: Site) -> frozenset[str]:
    """Regions besides the bucket's in which the checkpoint to resume from was seen complete."""
    candidate = resume_candidate(run.checkpoints)
    if candidate is None:
        return frozenset()
    there = (known for region, _ in site.replicas if (known := replica_in(run, region)) is not None)
    return frozenset(known.region for known in there if known.holds(candidate.id))


def _candidate(run: Run) -> Checkpoint | None:
    """What would be resumed from, once it is certain that it is whole at home."""
    found = resume_candidate(run.checkpoints)
    return None if found is None or found.is_stale(run.recheck_after) else found


def _regions_wanted(run: Run, site: Site) -> frozenset[str]:
    """Where a next attempt may be, or one is that has restored nothing yet."""
    waiting = frozenset(a.pool.region for a in run.live if a.pool is not None and _awaits(a))
    return waiting | {pool.region for pool in pools_of(run.spec, site.zones)}


def _is_due(run: Run, region: str, candidate: Checkpoint, now: datetime, site: Site) -> bool:
    known = replica_in(run, region)
    if known is None or known.checked_at is None or known.checkpoint != str(candidate.id):
        return True
    if known.complete:
        return known.is_stale(run.recheck_after)
    waiting = _awaited_in(run, region)
    if waiting is not None and waiting.launched_at is not None and known.checked_at < waiting.launched_at:
        return True
    return now >= known.checked_at + _pause(run, known, site)


def _pause(run: Run, known: Replica, site: Site) -> timedelta:
    """Until an incomplete replica is looked at again: S3 copies within seconds mostly, and within minutes."""
    timings = site.timings
    if _awaited_in(run, known.region) is not None:
        return timings.settle
    return min(timings.watch * 2.0 ** min(max(known.looks - 1, 0), 6), timings.backoff_most)


def _awaited_in(run: Run, region: str) -> Attempt | None:
    """The attempt there that has restored nothing yet."""
    return next((a for a in run.live if a.pool is not None and a.pool.region == region and _awaits(a)), None)


def _awaits(attempt: Attempt) -> bool:
    young = attempt.state in (AttemptState.BOOTING, AttemptState.RUNNING)
    return young and not attempt.resumed_checkpoint and attempt.first_step_at is None


def _with(run: Run, replica: Replica) -> Run:
    others = tuple(each for each in run.replicas if each.region != replica.region)
    return replace(run, replicas=(*others, replica))
