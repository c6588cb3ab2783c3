"""Creating an object once, whatever becomes of the replies; nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spotrelay.core.errors import AlreadyExists
from spotrelay.core.ports import ObjectStore, StoredObject
from trainer_shim.uploading.digests import content_digest

Call = Callable[[Callable[[], Any]], Any]  # runs a request, again while that is safe and may help


def create(objects: ObjectStore, key: str, send: Callable[[], StoredObject], digest: str, call: Call) -> StoredObject:
    """The object with these bytes, made now or by an earlier try whose reply was lost.

    Args:
        send: puts the bytes under the key.
        digest: xxh3-128 of them.

    Raises:
        AlreadyExists: the key holds something else; nothing was changed.
    """

    def put() -> StoredObject:
        try:
            return send()
        except AlreadyExists:
            return _own(objects, key, digest)

    stored: StoredObject = call(put)
    if stored.checksum:
        return stored
    return replace(stored, checksum=call(lambda: objects.head(key, stored.version_id).checksum))


def _own(objects: ObjectStore, key: str, digest: str) -> StoredObject:
    """The object under a key that is taken, if it is what was to be put there."""
    found = objects.head(key)
    if content_digest(objects.get(key, found.version_id)) == digest:
        return found
    raise AlreadyExists(f"{key} holds something else: an earlier process of this attempt wrote it")
