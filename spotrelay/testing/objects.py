"""A versioned bucket in memory, and an outside hand that harms it."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile

from spotrelay.aws.checksums import checksum_of
from spotrelay.core.errors import AlreadyExists, Damaged, InvalidInput, Missing, Unavailable
from spotrelay.core.ports import Body, StoredObject, parts_of


@dataclass(frozen=True)
class _Version:
    version_id: str
    body: bytes | None  # None: a delete marker
    etag: str
    checksum: str


class MemoryStream:
    """A `Stream` over bytes in memory."""

    def __init__(self, key: str, body: bytes, start: int = 0) -> None:
        self.size = len(body)
        self._key = key
        self._body = memoryview(body)
        self._at = start

    def fill(self, view: memoryview) -> None:
        """Put the next bytes straight into this memory, all of it."""
        end = self._at + len(view)
        if end > self.size:
            raise Unavailable(f"reading {self._key}: the answer ended after {self.size} bytes")
        view[:] = self._body[self._at : end]
        self._at = end

    def __enter__(self) -> MemoryStream:
        return self

    def __exit__(self, *failure: object) -> None:
        return


class MemoryObjects:
    """An `ObjectStore`. What only an outside hand can do stands at the end of the class."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, list[_Version]] = {}  # oldest first
        self._sorted: list[str] = []  # the same keys, for listings
        self._count = 0

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        """Create an object; nothing is ever overwritten."""
        if checksum and checksum != checksum_of(body):
            raise InvalidInput(f"writing {key}: BadDigest: the bytes do not match the checksum that came with them")
        with self._lock:
            if self._latest(key) is not None:
                raise AlreadyExists(f"{key} exists already: read it, it may be your own earlier try")
            return _shown(key, self._add(key, b"".join(parts_of(body))), latest=True)

    def get(self, key: str, version_id: str | None = None) -> bytes:
        """The bytes of one version."""
        with self._lock:
            version = self._version(key, version_id)
        body = version.body or b""
        if checksum(body) != version.checksum:
            raise Damaged(f"{key} at version {version.version_id} does not match its own checksum")
        return body

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> MemoryStream:
        """The bytes of one version as they arrive, compared with nothing."""
        with self._lock:
            body = self._version(key, version_id).body or b""
        if start and start >= len(body):
            raise Damaged(f"{key} has {len(body)} bytes, none of them at {start}")
        return MemoryStream(key, body, start)

    def head(self, key: str, version_id: str | None = None) -> StoredObject:
        """Size, ETag, version and checksum."""
        with self._lock:
            version = self._version(key, version_id)
            return _shown(key, version, latest=self._latest(key) is version)

    def delete(self, key: str, version_id: str) -> None:
        """Take one version out of the bucket for good."""
        with self._lock:
            kept = [v for v in self._keys.get(key, []) if v.version_id != version_id]
            if kept:
                self._keys[key] = kept
            elif self._keys.pop(key, None) is not None:
                del self._sorted[bisect_left(self._sorted, key)]

    def list_versions(self, prefix: str) -> Iterator[StoredObject]:
        """Every version under a prefix that is not a delete marker, newest of each key first."""
        with self._lock:
            found = [
                replace(_shown(key, version, latest=version is self._keys[key][-1]), checksum="")
                for key in self._under(prefix)
                for version in reversed(self._keys[key])
                if version.body is not None
            ]
        return iter(found)

    # the outside hand

    def overwrite(self, key: str, body: bytes) -> StoredObject:
        """Put another version on top, as anyone with rights to the bucket could."""
        with self._lock:
            return _shown(key, self._add(key, body), latest=True)

    def hide(self, key: str) -> None:
        """Put a delete marker on top; the versions beneath stay."""
        with self._lock:
            self._append(key, _Version(self._next_id(), None, "", ""))

    def remove(self, key: str, version_id: str | None = None) -> None:
        """Delete one version for good; the latest when none is named."""
        with self._lock:
            version = self._version(key, version_id)
            self._keys[key].remove(version)

    def damage(self, key: str, version_id: str | None = None) -> None:
        """Flip a bit beneath the checksum; a listing shows nothing of it."""
        with self._lock:
            version = self._version(key, version_id)
            body = version.body or b"\0"
            self._swap(key, version, replace(version, body=bytes([body[0] ^ 1]) + body[1:]))

    def truncate(self, key: str, size: int, version_id: str | None = None) -> None:
        """Cut a version short, so that its size, ETag and checksum all differ."""
        with self._lock:
            version = self._version(key, version_id)
            body = (version.body or b"")[:size]
            self._swap(key, version, replace(version, body=body, etag=_etag(body), checksum=checksum(body)))

    def replicate(self, copy: MemoryObjects, prefix: str = "runs/") -> None:
        """Bring another bucket up to date, as S3 replicates: versions keep their ids, and none is ever taken away."""
        with self._lock:
            versions = [(key, version) for key in self._under(prefix) for version in self._keys[key]]
        with copy._lock:
            for key, version in versions:
                if all(known.version_id != version.version_id for known in copy._keys.get(key, [])):
                    copy._append(key, version)

    # beneath

    def _latest(self, key: str) -> _Version | None:
        versions = self._keys.get(key)
        return versions[-1] if versions and versions[-1].body is not None else None

    def _version(self, key: str, version_id: str | None) -> _Version:
        if version_id is None:
            version = self._latest(key)
        else:
            named = (v for v in self._keys.get(key, []) if v.version_id == version_id)
            version = next((v for v in named if v.body is not None), None)
        if version is None:
            raise Missing(f"{key} is not in the bucket" + (f" at version {version_id}" if version_id else ""))
        return version

    def _add(self, key: str, body: bytes) -> _Version:
        version = _Version(self._next_id(), body, _etag(body), checksum(body))
        self._append(key, version)
        return version

    def _append(self, key: str, version: _Version) -> None:
        if key not in self._keys:
            self._keys[key] = []
            insort(self._sorted, key)
        self._keys[key].append(version)

    def _under(self, prefix: str) -> Iterator[str]:
        """Keys that begin like this, in order."""
        start = bisect_left(self._sorted, prefix)
        return takewhile(lambda key: key.startswith(prefix), islice(self._sorted, start, None))

    def _swap(self, key: str, old: _Version, new: _Version) -> None:
        self._keys[key] = [new if version is old else version for version in self._keys[key]]

    def _next_id(self) -> str:
        self._count += 1
        return f"v{self._count:08d}"


def checksum(body: bytes) -> str:
    """As S3 would keep it: the algorithm, a colon, base64."""
    return "crc32:" + base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _shown(key: str, version: _Version, latest: bool) -> StoredObject:
    return StoredObject(key, version.version_id, len(version.body or b""), version.etag, latest, version.checksum)
