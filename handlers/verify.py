"""Compares a committed checkpoint with what is really in S3, object by object.

A verdict is only given on what S3 answered. When S3 does not answer, the error goes to the
caller and nothing is judged: a checkpoint is never condemned for an outage.
"""

from __future__ import annotations

from datetime import datetime

from handlers.manifests import manifest_of
from spotrelay.core.checkpoint import Commit, Manifest, Shard, Verdict
from spotrelay.core.errors import Damaged, Missing, Unavailable
from spotrelay.core.ports import ObjectStore, StoredObject

Listing = dict[tuple[str, str], StoredObject]  # (key, version) to what the listing shows


def verify(commit: Commit, objects: ObjectStore, now: datetime) -> Verdict:
    """What a comparison of this checkpoint with S3 found; the problem names the object.

    Raises:
        Unavailable, Contention: S3 gave no answer; try again later.
        UnknownFormat: a newer version wrote the manifest; upgrade, it is not judged.
    """
    try:
        manifest = _manifest(commit, objects)
        _compare(manifest, objects)
    except (Missing, Damaged) as error:
        return Verdict(commit.generation, commit.save, False, str(error), now)
    return Verdict(commit.generation, commit.save, True, "", now)


def _manifest(commit: Commit, objects: ObjectStore) -> Manifest:
    manifest = _read(commit, objects)
    for name in ("run_id", "generation", "save", "step"):
        said, committed = getattr(manifest, name), getattr(commit, name)
        if said != committed:
            raise Damaged(f"the manifest {commit.manifest_key} says {name} {said}, the commit {committed}")
    return manifest


def _read(commit: Commit, objects: ObjectStore) -> Manifest:
    try:
        return manifest_of(commit, objects)
    except Missing:
        _list(commit.manifest_key, objects)  # the object is missing, or the bucket that we look into
        raise


def _compare(manifest: Manifest, objects: ObjectStore) -> None:
    listing = _listing(manifest, objects)
    for shard in manifest.shards:
        _compare_shard(shard, listing.get((shard.key, shard.version_id)), objects)


def _listing(manifest: Manifest, objects: ObjectStore) -> Listing:
    """Every version beside one of the shards; a listing shows 1,000 in one call."""
    home = f"runs/{manifest.run_id}/shards/"
    foreign = next((shard.key for shard in manifest.shards if not shard.key.startswith(home)), None)
    if foreign is not None:
        raise Damaged(f"the manifest names {foreign}, which is outside of its run's shards")
    prefixes = sorted({shard.key.rpartition("/")[0] + "/" for shard in manifest.shards})
    return {(found.key, found.version_id): found for prefix in prefixes for found in _list(prefix, objects)}


def _list(prefix: str, objects: ObjectStore) -> list[StoredObject]:
    try:
        return list(objects.list_versions(prefix))
    except Missing as error:  # of a listing, this speaks about the whole bucket
        raise Unavailable(f"nothing can be verified: {error}") from error


def _compare_shard(shard: Shard, listed: StoredObject | None, objects: ObjectStore) -> None:
    # Strongly consistent or not: an object that one listing leaves out is asked for by name.
    found = listed or objects.head(shard.key, shard.version_id)
    if found.size != shard.size:
        raise Damaged(f"{shard.key} has {found.size} bytes, the manifest says {shard.size}")
    if found.etag != shard.etag:
        _compare_checksum(shard, objects)
    if not found.latest:
        # The version is still there, but what stands on top of it was put there by somebody who
        # deletes or replaces checkpoints, and lifecycle rules take hidden versions away.
        raise Damaged(f"{shard.key} was deleted or overwritten after it was committed")


def _compare_checksum(shard: Shard, objects: ObjectStore) -> None:
    """Another ETag with the same checksum is the same bytes, encrypted anew; anything else is not."""
    found = objects.head(shard.key, shard.version_id)
    if not shard.checksum or found.checksum != shard.checksum or found.size != shard.size:
        raise Damaged(
            f"{shard.key} has ETag {found.etag} and checksum {found.checksum or 'none'}, "
            f"the manifest says {shard.etag} and {shard.checksum or 'none'}"
        )
