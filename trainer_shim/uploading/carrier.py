"""What carries the shards of one save to the bucket, wherever their bytes are and whoever sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from spotrelay.core.ports import Body, ObjectStore, StoredObject
from trainer_shim.uploading.digests import Seal, seal


class Carrier(Protocol):
    """Works on shards by their index in the plan. Calls may come from several threads."""

    def seal(self, shard: int) -> Seal:
        """What the shard's bytes sum up to."""
        ...

    def put(self, shard: int, key: str, sealed: Seal) -> StoredObject:
        """Create the object. Raises as `ObjectStore.put`."""
        ...


class CarrierHere:
    """Does it all in this process, without a copy."""

    def __init__(self, objects: ObjectStore, body: Callable[[int], Body]) -> None:
        self._objects = objects
        self._body = body

    def seal(self, shard: int) -> Seal:
        """See `Carrier.seal`."""
        return seal(self._body(shard))

    def put(self, shard: int, key: str, sealed: Seal) -> StoredObject:
        """See `Carrier.put`."""
        return self._objects.put(key, self._body(shard), sealed.checksum)
