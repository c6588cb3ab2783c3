"""Deletes from the bucket what no checkpoint names any more. Nobody else deletes anything.

Three things have to come together before an object goes: it is certain, since a grace, that no
save of its number can be committed any more; every checkpoint that named it was retired a grace
ago; and S3 answered every question. The order of the looks carries the proof. First the lease,
which says up to where saves are settled; then the commits, so that none of a settled save is
overlooked; then their manifests; then the objects. What is committed meanwhile names objects of
its own, which are not settled, and those of checkpoints that were not retired, which are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from handlers.control import ControlPlane
from handlers.judging import judged_all
from handlers.manifests import manifest_of
from handlers.settings import COLLECTED, COLLECTIONS_POSTPONED
from spotrelay.core.checkpoint import Checkpoint, CheckpointId
from spotrelay.core.errors import Damaged, Missing, SpotrelayError, Unavailable
from spotrelay.core.facts import Collected, CollectionPostponed, Fact
from spotrelay.core.lease import settled
from spotrelay.core.ports import EVERY, ObjectStore, StoredObject
from spotrelay.core.retention import Upkeep, advanced, superfluous
from spotrelay.core.run import Run

KINDS = ("shards", "parts", "manifests")  # in this order: what a manifest names goes before the manifest
PLACE = re.compile(r"^runs/[^/]+/(?:shards|parts|manifests)/(\d{6,9})/(\d{6,9})[/.]")
MOST_DELETED = 500  # objects in one look; the next one follows at once

Objects = dict[tuple[str, str], StoredObject]  # (key, version) to what the listing shows


def collect(run: Run, plane: ControlPlane) -> tuple[Fact, ...]:
    """Retire what need not be kept, delete what nothing names, forget what nothing is left of.

    Never raises for what AWS answers: a refusal or an outage holds up nothing but this, and deletes nothing.
    """
    judged: list[Fact] = []
    try:
        return (_Look(run, plane, judged).once(),)
    except SpotrelayError as error:
        plane.telemetry.count(COLLECTIONS_POSTPONED)
        plane.telemetry.warning("collecting goes on later", run_id=run.run_id, cause=str(error))
        return (*judged, CollectionPostponed(str(error)))


class _Look:
    """One look through one run's bucket."""

    def __init__(self, run: Run, plane: ControlPlane, judged: list[Fact]) -> None:
        if run.lease is None:
            raise Unavailable(f"the lease of run {run.run_id} was not read")
        self._run = run
        self._plane = plane
        self._judged = judged  # verdicts on checkpoints whose manifests turned out to be unreadable
        self._now = plane.clock.now()
        self._grace = plane.site.timings.grace
        self._lease_says = settled(run.lease)  # read before the commits
        self._upkeep = advanced(run.upkeep, self._lease_says, self._now, self._grace)
        self._settled = CheckpointId.of(self._upkeep.settled)
        self._shards: dict[CheckpointId, tuple[tuple[str, str], ...]] = {}  # key and version, of those read so far

    def once(self) -> Collected:
        """Everything that is due, as far as one look goes."""
        checkpoints = self._plane.store.checkpoints(self._run.run_id, EVERY)
        retired = tuple(self._retire(checkpoints))
        spent = [c for c in checkpoints if self._is_spent(c)]
        named_by = [c for c in checkpoints if c not in spent]
        deleted, rest = self._delete(self._plane.objects, named_by)
        copies = [self._left_in(region, named_by) for region in self._plane.replicas]
        rest += sum(each or 0 for each in copies)
        forgotten = () if rest else tuple(self._forget(spent))
        self._plane.telemetry.count(COLLECTED, deleted)
        left = len(retired) + sum(c.retired for c in checkpoints) - len(forgotten) + copies.count(None)
        return Collected(self._planned(rest, left), retired, forgotten, deleted)

    def _left_in(self, region: str, named_by: list[Checkpoint]) -> int | None:
        """Objects of a replica that are left to the next look, as at home; None when it gave no answer.

        S3 does not replicate the deletion of a version, so each copy is looked through by itself. One that
        gives no answer holds up nothing at home; it is looked through again, also when the run is over.
        """
        try:
            return self._delete(self._plane.replicas[region], named_by)[1]
        except SpotrelayError as error:
            if self._judged:
                raise  # it was home that had to be judged first
            self._plane.telemetry.count(COLLECTIONS_POSTPONED)
            about = {"run_id": self._run.run_id, "region": region, "cause": str(error)}
            self._plane.telemetry.warning("a replica is collected later", **about)
            return None

    def _delete(self, bucket: ObjectStore, named_by: list[Checkpoint]) -> tuple[int, int]:
        """How many objects were deleted from a bucket, and how many are left to the next look."""
        garbage = self._unnamed(bucket, named_by)
        for stored in garbage[:MOST_DELETED]:
            bucket.delete(stored.key, stored.version_id)
        return min(len(garbage), MOST_DELETED), max(len(garbage) - MOST_DELETED, 0)

    def _retire(self, checkpoints: tuple[Checkpoint, ...]) -> Iterator[str]:
        attempts = [a for a in self._run.attempts if not a.over or a.live]
        in_use = frozenset(a.resumed_checkpoint for a in attempts if a.resumed_checkpoint)
        over = self._run.status.final
        for checkpoint in superfluous(checkpoints, self._run.spec.keep, in_use, over=over):
            if self._plane.store.retire(self._run.run_id, checkpoint, self._now):
                yield str(checkpoint.id)

    def _is_spent(self, checkpoint: Checkpoint) -> bool:
        """Whether nobody can be reading it any more, nor building on it."""
        at = checkpoint.retired_at
        return at is not None and self._now - at >= self._grace and checkpoint.id <= self._settled

    def _unnamed(self, bucket: ObjectStore, named_by: Iterable[Checkpoint]) -> list[StoredObject]:
        """Every object of a settled save that none of these checkpoints needs; shards first, manifests last."""
        found = self._listed(bucket)
        for checkpoint in sorted(named_by, key=lambda c: c.id, reverse=True):
            oldest = min((_place(key) for key, _ in found), default=checkpoint.id)
            if oldest > checkpoint.id:
                break  # a checkpoint names its own save's objects and older ones
            found.pop((checkpoint.commit.manifest_key, checkpoint.commit.manifest_version), None)
            for named in self._shards_of(checkpoint):
                found.pop(named, None)
        return list(found.values())

    def _listed(self, bucket: ObjectStore) -> Objects:
        if self._settled == CheckpointId.of(""):
            return {}
        prefixes = (f"runs/{self._run.run_id}/{kind}/" for kind in KINDS)
        versions = (stored for prefix in prefixes for stored in bucket.list_versions(prefix))
        return {(s.key, s.version_id): s for s in versions if PLACE.match(s.key) and _place(s.key) <= self._settled}

    def _shards_of(self, checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
        """Key and version of each shard, read once for all copies of the bucket."""
        if checkpoint.id not in self._shards:
            self._shards[checkpoint.id] = tuple(self._read_shards(checkpoint))
        return self._shards[checkpoint.id]

    def _read_shards(self, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
        try:
            manifest = manifest_of(checkpoint.commit, self._plane.objects)
        except (Missing, Damaged) as error:
            if checkpoint.usable:
                self._judged += judged_all((checkpoint,), self._run, self._plane)
                raise Unavailable(f"checkpoint {checkpoint.id} had to be judged first: {error}") from error
            return  # condemned, or retired: nobody reads what its manifest may have said
        yield from ((shard.key, shard.version_id) for shard in manifest.shards)

    def _forget(self, spent: list[Checkpoint]) -> Iterator[str]:
        for checkpoint in spent:
            self._plane.store.forget(self._run.run_id, checkpoint.id)
            yield str(checkpoint.id)

    def _planned(self, rest: int, left: int) -> Upkeep:
        timings = self._plane.site.timings
        if rest:
            return replace(self._upkeep, due_at=self._now + timings.settle)
        done = self._run.status.final and not left and self._settled >= self._lease_says
        next_look: datetime | None = None if done else self._now + timings.grace / 2
        return replace(self._upkeep, due_at=next_look)


def _place(key: str) -> CheckpointId:
    """The save that an object was written for, by its key."""
    match = PLACE.match(key)
    if match is None:
        raise ValueError(f"{key} names no save")
    return CheckpointId(int(match[1]), int(match[2]))
