"""Verdicts on checkpoints: reached by comparing with S3, or brought by a reader; written down either way.

Who is condemned is retired first. The mark stands in the row that every commit that builds on the
checkpoint requires, so nothing new can be built on what is known to be damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from handlers.control import ControlPlane
from handlers.manifests import manifest_of
from handlers.verify import verify
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Manifest, Verdict
from spotrelay.core.errors import Damaged, InvalidInput, Missing, SpotrelayError, UnknownFormat
from spotrelay.core.facts import Fact, VerificationPostponed, Verified
from spotrelay.core.ports import EVERY
from spotrelay.core.run import Run

TICK = timedelta(microseconds=1)
MANY = 1000  # checkpoints that a reader may look through, and so may bring a verdict on


def judged(checkpoints: tuple[Checkpoint, ...], run: Run, plane: ControlPlane) -> Iterator[Fact]:
    """Newest first, until one is whole; no verdict about one that S3 or its format keeps from us."""
    for fact in judged_all(checkpoints, run, plane):
        yield fact
        if isinstance(fact, Verified) and fact.ok:
            return


def judged_all(checkpoints: tuple[Checkpoint, ...], run: Run, plane: ControlPlane) -> Iterator[Fact]:
    """Each of them in turn, as long as S3 answers."""
    at = _after_everything(run, plane)
    for checkpoint in checkpoints:
        try:
            verdict = verify(checkpoint.commit, plane.objects, at)
            _write(verdict, checkpoint, run, plane)
        except UnknownFormat as error:
            yield VerificationPostponed(f"checkpoint {checkpoint.id}: {error}")
            continue
        except SpotrelayError as error:  # no outage, no missing object: a refusal, say, or an archived one
            yield VerificationPostponed(f"checkpoint {checkpoint.id}: {error}")
            return
        at += TICK
        yield Verified(verdict.generation, verdict.save, verdict.ok, verdict.problem)


def condemned(fact: Verified, run: Run, plane: ControlPlane) -> tuple[Verified, ...]:
    """Write down a verdict that a reader brought, on every checkpoint that it concerns; empty when it is known.

    Raises:
        Unavailable, Contention: it may not concern those only that are written down: the event has to come back.
    """
    known = _known(CheckpointId(fact.generation, fact.save), run, plane)
    if known is None:
        return ()
    found = []
    if not known.condemned:
        found.append(_condemn(known, fact.problem, run, plane))
    if fact.key and _names(known, fact, plane):
        found += _spread(known, fact, run, plane)
    return tuple(found)


def _known(wanted: CheckpointId, run: Run, plane: ControlPlane) -> Checkpoint | None:
    """The checkpoint, also where it is older than those that are read with a run; None when there is none."""
    found = next((c for c in run.checkpoints if c.id == wanted), None)
    if found is not None:
        return found
    return next((c for c in plane.store.checkpoints(run.run_id, MANY) if c.id == wanted), None)


def _spread(known: Checkpoint, fact: Verified, run: Run, plane: ControlPlane) -> Iterator[Verified]:
    """Whoever names the damaged shard too. Looked for until a look finds nobody: each commit builds on
    what was not condemned when it was made, so a look after the last mark finds the last of them."""
    problem = f"it names {fact.key}, which {known.id} could not be restored from: {fact.problem}"
    cleared: set[CheckpointId] = {known.id}
    while True:
        before = len(cleared)
        for checkpoint in plane.store.checkpoints(run.run_id, EVERY):
            if checkpoint.id in cleared or checkpoint.condemned:
                continue
            cleared.add(checkpoint.id)
            if _names(checkpoint, fact, plane):
                yield _condemn(checkpoint, problem, run, plane)
        if len(cleared) == before:
            return


def _names(checkpoint: Checkpoint, fact: Verified, plane: ControlPlane) -> bool:
    try:
        manifest: Manifest = manifest_of(checkpoint.commit, plane.objects)
    except (Missing, Damaged, InvalidInput):
        return False  # a comparison judges it
    return any((s.key, s.version_id) == (fact.key, fact.version_id or s.version_id) for s in manifest.shards)


def _condemn(checkpoint: Checkpoint, problem: str, run: Run, plane: ControlPlane) -> Verified:
    generation, save = checkpoint.id.generation, checkpoint.id.save
    _write(Verdict(generation, save, False, problem, _after_everything(run, plane)), checkpoint, run, plane)
    return Verified(generation, save, False, problem)


def _write(verdict: Verdict, checkpoint: Checkpoint, run: Run, plane: ControlPlane) -> None:
    if not verdict.ok:
        plane.store.retire(run.run_id, replace(checkpoint, verdict=verdict), plane.clock.now())
    plane.store.record_verdict(run.run_id, verdict)


def _after_everything(run: Run, plane: ControlPlane) -> datetime:
    """Now; later than every verdict there is and than what asked for this one: other functions' clocks told those."""
    told = [c.verdict.checked_at for c in run.checkpoints if c.verdict is not None] + [run.recheck_after]
    return max([plane.clock.now(), *(moment + TICK for moment in told if moment is not None)])
