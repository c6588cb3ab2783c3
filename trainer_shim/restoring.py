"""A checkpoint on its way back: every byte is proven before anything looks at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from spotrelay.core.checkpoint import Checkpoint, Commit, Manifest, Shard, decode_manifest, digest_of
from spotrelay.core.errors import Damaged, InvalidInput, Missing
from trainer_shim.framework import Framework
from trainer_shim.shards import gather, read
from trainer_shim.together import together
from trainer_shim.tree import unflatten
from trainer_shim.views import Wanted, everything, view
from trainer_shim.wiring import Ports

Call = Callable[[Callable[[], Any]], Any]


@dataclass(frozen=True)
class Restored:
    """A proven checkpoint, not yet applied."""

    checkpoint: Checkpoint
    manifest: Manifest
    state: dict[str, Any]


def fetch(
    checkpoint: Checkpoint,
    ports: Ports,
    framework: Framework,
    cache: Path | None,
    call: Call,
    rank: int = 0,
    wanted: Wanted = everything,
) -> Restored:
    """The training state in a checkpoint, proven against its commit; touches nothing.

    Args:
        rank: whose state, where several ranks have saved together.
        wanted: which part it needs of arrays that were saved in pieces.
        call: runs a request, again while it is safe and may help.

    Raises:
        Damaged: something differs from what was committed, or is gone; names the object.
        UnknownFormat: a newer version wrote it.
        InvalidInput: it is of another kind; says what reads it.
    """
    manifest = proven_manifest(checkpoint.commit, ports, call)
    if manifest.tree.get("kind"):
        raise InvalidInput(
            f"checkpoint {checkpoint.id} was saved through torch.distributed.checkpoint: read it with "
            "trainer_shim.frameworks.torch_dcp, or submit this script as a new run"
        )
    try:
        mine = view(manifest.tree, rank, wanted)
        shards = [manifest.shards[number] for number in mine.shards]
        bodies = together(lambda shard: proven_shard(shard, ports, cache, call), shards)
        read_in = zip(mine.shards, shards, bodies, strict=True)
        entries = {number: read(memoryview(body), shard.key) for number, shard, body in read_in}
        arrays = {
            name: framework.array(gather(name, each, entries), each["dtype"], tuple(each["shape"]))
            for name, each in mine.arrays.items()
        }
        return Restored(checkpoint, manifest, unflatten(mine.state, arrays.__getitem__))
    except (InvalidInput, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Damaged(f"checkpoint {checkpoint.id}: its manifest does not describe its shards ({error})") from error


def proven_manifest(commit: Commit, ports: Ports, call: Call) -> Manifest:
    """The manifest that was committed.

    Raises:
        Damaged: it is another one, or gone; names the object.
        UnknownFormat: a newer version wrote it.
    """
    body = _get(commit.manifest_key, commit.manifest_version, ports, call)
    if digest_of(body) != commit.manifest_digest:
        raise Damaged(f"{commit.manifest_key} is not the manifest that was committed as {commit.id}")
    try:
        manifest = decode_manifest(body)
    except InvalidInput as error:
        raise Damaged(f"{commit.manifest_key}: {error}") from error
    said = (manifest.run_id, manifest.generation, manifest.save, manifest.step)
    if said != (commit.run_id, commit.generation, commit.save, commit.step):
        raise Damaged(f"{commit.manifest_key} is the manifest of another checkpoint than {commit.id}")
    return manifest


def proven_shard(shard: Shard, ports: Ports, cache: Path | None, call: Call) -> bytes:
    """A shard's bytes, from the cache or the bucket, with the digest that the manifest says.

    Raises:
        Damaged: it has other bytes, or is gone; names the object.
    """
    held = _cached(shard, cache)
    if held is not None:
        return held
    body = _get(shard.key, shard.version_id, ports, call)
    if not _is(body, shard):
        body = _get(shard.key, shard.version_id, ports, call)  # the way here may be what damaged it
    if not _is(body, shard):
        raise Damaged(f"{shard.key} at version {shard.version_id} has other bytes than were saved")
    return body


def _cached(shard: Shard, cache: Path | None) -> bytes | None:
    if cache is None:
        return None
    try:
        body = (cache / shard.key.rpartition("/")[2]).read_bytes()
    except OSError:
        return None  # a cache may always be empty
    return body if _is(body, shard) else None


def _is(body: bytes, shard: Shard) -> bool:
    return len(body) == shard.size and xxhash.xxh3_128_hexdigest(body) == shard.digest


def _get(key: str, version_id: str, ports: Ports, call: Call) -> bytes:
    try:
        try:
            body = call(lambda: ports.objects.get(key, version_id))
        except Damaged:  # on its way, perhaps
            body = call(lambda: ports.objects.get(key, version_id))
    except Missing as error:
        raise Damaged(f"{key} at version {version_id} is gone from the bucket") from error
    assert isinstance(body, bytes)
    return body
