"""A checkpoint on its way: shards, manifest, commit, in this order and never another.

Every object is created, never overwritten; what cannot be told apart from our own earlier try by
its size and digest-bearing key is not ours. Until the commit nothing of it exists for anybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from spotrelay.core.checkpoint import (
    CheckpointId,
    Commit,
    Health,
    Manifest,
    Shard,
    digest_of,
    manifest_key,
    shard_key,
)
from spotrelay.core.errors import AlreadyExists, Fenced, OutcomeUnknown, Retired
from spotrelay.core.health import Judgement, joined
from spotrelay.core.ports import StoredObject
from trainer_shim.base import Base
from trainer_shim.creating import create
from trainer_shim.environment import Identity
from trainer_shim.herald import publish
from trainer_shim.patience import Cancelled, persevere
from trainer_shim.snapshot import Snapshot
from trainer_shim.together import together
from trainer_shim.uploading.digests import content_digest
from trainer_shim.voice import logger, say
from trainer_shim.wiring import Ports

T = TypeVar("T")

COMMITTED = "checkpoint %s is committed"  # for who looks closely: a line of the logger's debug level


class Flight:
    """One save in the background. At most one exists at a time."""

    patience_s: float | None = None  # with one request; None: as long as nobody cancels

    def __init__(self, ports: Ports, identity: Identity, snapshot: Snapshot, save: int, base: Base) -> None:
        self.snapshot = snapshot
        self.save = save  # number of the save; grows when one turns out to be taken
        self.commit: Commit | None = None  # once it is committed
        self.failure: Exception | None = None  # why it never will be
        self.trouble = ""  # what does not work at present
        self.judgement = Judgement(Health.HEALTHY)  # once the arrays have been looked at
        self.whole_s = 0.0  # from the snapshot to the commit
        self.over = threading.Event()
        self.rank = 0
        self._cancel = threading.Event()
        self._unheard = False  # whether a request had no clear answer
        self._ports = ports
        self._identity = identity
        self._base = base

    def start(self) -> None:
        """Begin, beside the training where a thread can be had."""
        try:
            threading.Thread(target=self.fly, name=f"spotrelay-save-{self.save}", daemon=True).start()
        except RuntimeError:  # the process is ending, or has no thread left: late is better than never
            self.fly()

    def cancel(self) -> None:
        """Give up as soon as no request is under way."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        return self._cancel.is_set()

    @property
    def sent_bytes(self) -> int:
        """Bytes that the bucket has by now."""
        return self.snapshot.cargo.sent

    @property
    def total_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.snapshot.cargo.plan.shards)

    @property
    def fenced(self) -> bool:
        """Whether it was refused because another attempt is in place."""
        return isinstance(self.failure, Fenced)

    def fly(self) -> None:
        """Everything, to whatever end; never raises."""
        try:
            self.commit = self._persist()
            self.whole_s = time.monotonic() - self.snapshot.taken_at
        except Exception as error:  # noqa: BLE001 - nothing in here may end the training
            self.failure = error
            if not isinstance(error, (Cancelled, Fenced)):
                say(f"checkpoint {self._identity.generation}.{self.save} failed, training goes on: {error}")
        finally:
            self.snapshot.cargo.abandon()
            self.over.set()
        if self.commit is not None:
            self._announce(self.commit)

    def _announce(self, commit: Commit) -> None:
        logger.debug(COMMITTED, commit.id)
        detail = {"run_id": commit.run_id, "generation": commit.generation, "save": commit.save}
        publish(self._ports.publisher, "Checkpoint Committed", detail)

    def _persist(self) -> Commit:
        stored: tuple[tuple[Shard, ...], tuple[str, ...]] | None = None
        durable_s = 0.0
        while True:
            try:
                if stored is None:
                    stored = self._store_shards(self.save)
                    durable_s = time.monotonic() - self.snapshot.taken_at
                shards, broken = stored
                self.judgement = joined(self.snapshot.known, broken)
                return self._conclude(self.save, shards, self.snapshot.tree, durable_s, self._base.builds_on)
            except AlreadyExists:
                # A process of this very attempt was here before: its number stays its own.
                if self._cancel.is_set():
                    raise
                self.save += 1
            except Retired as error:
                # Its manifest, which names the retired shards, is there: that number stays its own, too.
                if not self._base.builds_on or not self.snapshot.cargo.again():
                    raise
                say(f"{error}. It is sent again, whole")
                self._base, stored = self._base.without(), None
                self.save += 1

    def _conclude(
        self,
        save: int,
        shards: tuple[Shard, ...],
        tree: dict[str, Any],
        durable_s: float,
        builds_on: tuple[CheckpointId, ...],
        world_size: int = 1,
    ) -> Commit:
        """Manifest and commit, for shards that are all durable."""
        snapshot, identity, judgement = self.snapshot, self._identity, self.judgement
        manifest = Manifest(
            identity.run_id,
            identity.generation,
            save,
            snapshot.step,
            shards,
            tree,
            world_size,
            threads=snapshot.threads,
            health=judgement.health,
            why=judgement.reason,
            losses=snapshot.losses,
            rollbacks=snapshot.rollbacks,
            reason=snapshot.reason,
            versions=snapshot.versions,
            code=snapshot.code,
        )
        body = manifest.encode()
        key = manifest_key(identity.run_id, identity.generation, save)
        stored = self._create(key, lambda: self._ports.objects.put(key, body), content_digest(body))
        commit = Commit(
            identity.run_id,
            identity.generation,
            save,
            snapshot.step,
            stored.key,
            stored.version_id,
            digest_of(body),
            sum(shard.size for shard in shards),
            judgement.health,
            snapshot.reason,
            round(snapshot.stall_s, 6),
            round(durable_s, 6),
            snapshot.rollbacks[-1].why if snapshot.back_to else judgement.reason,
            snapshot.back_to,
            builds_on,
        )
        self._commit(commit)
        self._base.remember(commit.id, shards)
        return commit

    def _commit(self, commit: Commit) -> None:
        # Sent again until the answer is clear: the store tells an earlier try of ours from a refusal.
        self._unheard = False
        self._try(lambda: self._ports.store.commit(commit, self._identity.instance_id))
        if self._unheard:
            say(f"the reply to the commit of checkpoint {commit.id} was lost; asked again: it is committed")

    def _store_shards(self, save: int) -> tuple[tuple[Shard, ...], tuple[str, ...]]:
        cargo = self.snapshot.cargo
        stored = together(lambda part: self._store_shard(save, part), range(len(cargo.plan.shards)))
        cargo.wait_for()
        return tuple(shard for shard, _ in stored), tuple(dict.fromkeys(name for _, found in stored for name in found))

    def _store_shard(self, save: int, part: int) -> tuple[Shard, tuple[str, ...]]:
        cargo = self.snapshot.cargo
        cargo.wait_for(part)
        size = cargo.plan.shards[part].size
        sealed = self._try(lambda: cargo.carrier.seal(part))
        digest = sealed.digest
        shard = self._base.shard(digest, size)
        if shard is None:
            key = shard_key(self._identity.run_id, self._identity.generation, save, self.rank, part, digest)
            stored = self._create(key, lambda: cargo.carrier.put(part, key, sealed), digest)
            shard = Shard(key, stored.version_id, size, stored.etag, digest, stored.checksum, self.rank)
        broken = cargo.broken(part)
        cargo.done_with(part)
        return shard, broken

    def _create(self, key: str, send: Callable[[], StoredObject], digest: str) -> StoredObject:
        return create(self._ports.objects, key, send, digest, self._try)

    def _try(self, call: Callable[[], T]) -> T:
        if self._cancel.is_set():
            raise Cancelled
        result = persevere(call, self._cancel, self._identity.time_scale, self.patience_s, self._note)
        self.trouble = ""
        return result

    def _note(self, error: Exception) -> None:
        self.trouble = str(error)
        self._unheard = self._unheard or isinstance(error, OutcomeUnknown)
