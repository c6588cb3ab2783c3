"""Reading the manifest that a commit names, and no other."""

from __future__ import annotations

from spotrelay.core.checkpoint import Commit, Manifest, decode_manifest, digest_of
from spotrelay.core.errors import Damaged, InvalidInput
from spotrelay.core.ports import ObjectStore


def manifest_of(commit: Commit, objects: ObjectStore) -> Manifest:
    """The manifest at the version that was committed, compared with the digest in the commit.

    Raises:
        Missing: it is not there, or the bucket is not.
        Damaged: it is not the one that was committed.
        Unavailable, Contention: S3 gave no answer.
        UnknownFormat: a newer version wrote it.
    """
    data = objects.get(commit.manifest_key, commit.manifest_version)
    if digest_of(data) != commit.manifest_digest:
        raise Damaged(f"the manifest {commit.manifest_key} is not the one that was committed: its digest differs")
    try:
        return decode_manifest(data)
    except InvalidInput as error:
        raise Damaged(f"{commit.manifest_key} is no manifest: {error}") from error
