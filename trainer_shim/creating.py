"""Creating an object once, whatever becomes of the replies; nothing is ever overwritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spotrelay.core.errors import AlreadyExists
from spotrelay.core.ports import ObjectStore, StoredObject

Call = Callable[[Callable[[], Any]], Any]  # runs a request, again while that is safe and may help


def create(objects: ObjectStore, key: str, body: bytes | memoryview, call: Call) -> StoredObject:
    """The object with these bytes, made now or by an earlier try whose reply was lost.

    Raises:
        AlreadyExists: the key holds something else; nothing was changed.
    """

    def put() -> StoredObject:
        try:
            return objects.put(key, body)
        except AlreadyExists:
            return _own(objects, key, body)

    stored: StoredObject = call(put)
    return (
        stored
        if stored.checksum
        else replace(stored, checksum=call(lambda: objects.head(key, stored.version_id).checksum))
    )


def _own(objects: ObjectStore, key: str, body: bytes | memoryview) -> StoredObject:
    found = objects.head(key)
    if found.size == len(body) and objects.get(key, found.version_id) == body:
        return found
    raise AlreadyExists(f"{key} holds something else: an earlier process of this attempt wrote it")
