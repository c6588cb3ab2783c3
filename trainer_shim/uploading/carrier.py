"""What carries the shards of one save to the bucket, wherever their bytes are and whoever sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from spotrelay.core.ports import Body, ObjectStore, StoredObject
from trainer_shim.uploading.digests import content_digest


class Carrier(Protocol):
    """Works on shards by their index in the plan. Calls may come from several threads."""

    def digest(self, shard: int) -> str:
        """xxh3-128 of the shard's bytes, 32 hexadecimal digits."""
        ...

    def put(self, shard: int, key: str) -> StoredObject:
        """Create the object. Raises as `ObjectStore.put`."""
        ...


class CarrierHere:
    """Does it all in this process, without a copy."""

    def __init__(self, objects: ObjectStore, body: Callable[[int], Body]) -> None:
        self._objects = objects
        self._body = body

    def digest(self, shard: int) -> str:
        """See `Carrier.digest`."""
        return content_digest(self._body(shard))

    def put(self, shard: int, key: str) -> StoredObject:
        """See `Carrier.put`."""
        return self._objects.put(key, self._body(shard))
