"""A checkpoint on its way back: every byte is proven before anything of the script is touched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from spotrelay.core.checkpoint import Checkpoint, Commit, Manifest, Shard, decode_manifest, digest_of
from spotrelay.core.errors import Damaged, InvalidInput
from trainer_shim.fetching import Call, cached, fetch_shard, whole
from trainer_shim.framework import Framework
from trainer_shim.inventory import ArraySpec, Inventory, inventory
from trainer_shim.landing import Place, landing
from trainer_shim.together import together
from trainer_shim.tree import unflatten
from trainer_shim.views import View, Wanted, everything, view
from trainer_shim.voice import say
from trainer_shim.wiring import Ports

LARGEST_MANIFEST = 2**30  # bytes
CONNECTIONS = 16  # shards on their way at the same time, at most: one connection carries so much and no more
FOR_EACH_CORE = 4  # of them

Fits = Callable[[dict[str, Any], Commit], None]


@dataclass(frozen=True)
class Restored:
    """A proven checkpoint, not yet applied."""

    checkpoint: Checkpoint
    manifest: Manifest
    state: dict[str, Any]  # its arrays belong to nobody else; applying it uses them up


def fetch(
    checkpoint: Checkpoint,
    ports: Ports,
    framework: Framework,
    cache: Path | None,
    call: Call,
    fits: Fits | None = None,
    rank: int = 0,
    wanted: Wanted = everything,
) -> Restored:
    """The training state in a checkpoint, proven against its commit; touches nothing.

    Args:
        cache: folder with shards that the agent fetched; checked like any other.
        call: runs a request, again while it is safe and may help.
        fits: raises if this state, with stand-ins for its arrays, cannot be applied; asked before a shard is fetched,
            unless arrays were saved in pieces, which have to be there before they can be put together.
        rank: whose state, where several ranks have saved together.
        wanted: which part it needs of arrays that were saved in pieces.

    Raises:
        Damaged: something differs from what was committed, or is gone; names the object.
        UnknownFormat: a newer version wrote it.
        InvalidInput: it is of another kind; says what reads it.
    """
    commit = checkpoint.commit
    manifest = proven_manifest(commit, ports, call, cache)
    if manifest.tree.get("kind"):
        raise InvalidInput(
            f"checkpoint {checkpoint.id} was saved through torch.distributed.checkpoint: read it with "
            "trainer_shim.frameworks.torch_dcp, or submit this script as a new run"
        )
    try:
        mine, found = _part(manifest, rank, wanted)
        stand_ins = {name: _stand_in(framework, spec) for name, spec in found.arrays.items()}
        expected = _state(mine, stand_ins, framework)
    except InvalidInput as error:
        raise _undescribed(commit, error) from error
    if fits is not None and "sharded" not in expected:
        fits(expected, commit)
    places = _landed(manifest, found, ports, framework, cache, call)
    arrays: dict[str, Any] = {}
    try:
        for name, spec in found.arrays.items():
            arrays[name] = framework.array(places.pop(name).take(), spec.dtype, spec.shape)
        return Restored(checkpoint, manifest, _state(mine, arrays, framework))
    except InvalidInput as error:
        raise _undescribed(commit, error) from error


def _part(manifest: Manifest, rank: int, wanted: Wanted) -> tuple[View, Inventory]:
    """What of a checkpoint this rank takes, and where it lies."""
    try:
        mine = view(manifest.tree, rank, wanted)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"its tree has a form that no version writes ({error!r})") from error
    return mine, inventory(mine.arrays, manifest.shards, partial="ranks" in manifest.tree)


def _landed(
    manifest: Manifest, found: Inventory, ports: Ports, framework: Framework, cache: Path | None, call: Call
) -> dict[str, Place]:
    """Every array of a checkpoint in its place, proven."""

    def land(folder: Path | None) -> dict[str, Place]:
        places = landing(found, framework.copied, folder)
        jobs = [(shard, spans) for shard, spans in zip(manifest.shards, found.shards, strict=True) if spans]
        connections = min(CONNECTIONS, FOR_EACH_CORE * (os.cpu_count() or 1))
        together(
            lambda job: fetch_shard(job[0], job[1], places, ports.objects, cache, call, found.partial),
            jobs,
            connections,
        )
        return places

    try:
        return land(cache if cache is not None and cache.is_dir() else Path(tempfile.gettempdir()))
    except OSError as error:
        say(f"the disk failed during the restore, it begins anew in memory alone: {error}")
    return land(None)


def _stand_in(framework: Framework, spec: ArraySpec) -> Any:
    return framework.stand_in(spec.dtype, spec.shape)


def _state(mine: View, arrays: Mapping[str, Any], framework: Framework) -> dict[str, Any]:
    try:
        state = unflatten(mine.state, arrays.__getitem__, framework.compose)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"its state has a form that no version writes ({error!r})") from error
    if not isinstance(state, dict):
        raise InvalidInput("its state is no dictionary")
    return state


def _undescribed(commit: Commit, error: Exception) -> Damaged:
    text = f"checkpoint {commit.id}: its manifest does not describe its shards ({error})"
    return Damaged(text, commit.manifest_key, commit.manifest_version)


def proven_manifest(commit: Commit, ports: Ports, call: Call, cache: Path | None = None) -> Manifest:
    """The manifest that was committed.

    Raises:
        Damaged: it is another one, or gone; names the object.
        UnknownFormat: a newer version wrote it.
    """
    key, version = commit.manifest_key, commit.manifest_version
    body = cached(key, cache, LARGEST_MANIFEST)
    for _ in range(2):  # the way here may be what damaged it
        if digest_of(body) != commit.manifest_digest:
            body = whole(key, version, ports.objects, call, LARGEST_MANIFEST)
    if digest_of(body) != commit.manifest_digest:
        raise Damaged(f"{key} is not the manifest that was committed as {commit.id}", key, version)
    try:
        manifest = decode_manifest(body)
    except InvalidInput as error:
        raise Damaged(f"{key}: {error}", key, version) from error
    said = (manifest.run_id, manifest.generation, manifest.save, manifest.step)
    if said != (commit.run_id, commit.generation, commit.save, commit.step):
        raise Damaged(f"{key} is the manifest of another checkpoint than {commit.id}", key, version)
    return manifest


def proven_shard(shard: Shard, ports: Ports, cache: Path | None, call: Call) -> bytes:
    """A shard's bytes, from the cache or the bucket, with the digest that the manifest says.

    Raises:
        Damaged: it has other bytes, or is gone; names the object.
    """
    body = cached(shard.key, cache, shard.size)
    for _ in range(2):  # the way here may be what damaged it
        if len(body) != shard.size or xxhash.xxh3_128_hexdigest(body) != shard.digest:
            body = whole(shard.key, shard.version_id, ports.objects, call, shard.size)
    if len(body) != shard.size or xxhash.xxh3_128_hexdigest(body) != shard.digest:
        text = f"{shard.key} at version {shard.version_id} has other bytes than were saved"
        raise Damaged(text, shard.key, shard.version_id)
    return body
