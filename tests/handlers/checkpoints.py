"""Checkpoints in memory, written as a training process would write them."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

from spotrelay.core.checkpoint import Commit, Health, Manifest, Shard, digest_of, manifest_key, shard_key
from spotrelay.core.ports import ObjectStore, StoredObject


def put_checkpoint(
    objects: ObjectStore,
    run_id: str = "run-1",
    generation: int = 1,
    save: int = 1,
    step: int = 10,
    bodies: tuple[bytes, ...] = (b"weights", b"optimizer"),
    health: Health = Health.HEALTHY,
    elder: tuple[Shard, ...] = (),
) -> tuple[Commit, Manifest]:
    """Shards, then the manifest; the commit is returned, for a store to keep.

    Args:
        elder: shards of an earlier save that this one points at as well.
    """
    shards = tuple(_put_shard(objects, run_id, generation, save, part, body) for part, body in enumerate(bodies))
    manifest = Manifest(run_id, generation, save, step, (*elder, *shards), health=health)
    return put_manifest(objects, manifest), manifest


def put_manifest(objects: ObjectStore, manifest: Manifest) -> Commit:
    """Only the manifest and the commit that names it."""
    return put_manifest_bytes(objects, manifest, manifest.encode())


def put_manifest_bytes(objects: ObjectStore, manifest: Manifest, data: bytes) -> Commit:
    """These bytes as the manifest, and the commit that names them."""
    key = manifest_key(manifest.run_id, manifest.generation, manifest.save)
    stored = objects.put(key, data)
    return Commit(
        manifest.run_id,
        manifest.generation,
        manifest.save,
        manifest.step,
        key,
        stored.version_id,
        digest_of(data),
        sum(shard.size for shard in manifest.shards),
        manifest.health,
    )


def newer_format(manifest: Manifest) -> bytes:
    """The manifest as a later version might write it."""
    return json.dumps(json.loads(manifest.encode()) | {"format": 99}).encode()


def changed_shard(manifest: Manifest, number: int, **changes: str | int) -> Manifest:
    """The manifest with one shard described differently."""
    shards = list(manifest.shards)
    shards[number] = replace(shards[number], **changes)  # type: ignore[arg-type]  # each field by its own name
    return replace(manifest, shards=tuple(shards))


def _put_shard(objects: ObjectStore, run_id: str, generation: int, save: int, part: int, body: bytes) -> Shard:
    digest = sha256(body).hexdigest()[:32]
    stored: StoredObject = objects.put(shard_key(run_id, generation, save, 0, part, digest), body)
    return Shard(stored.key, stored.version_id, stored.size, stored.etag, digest, stored.checksum)
