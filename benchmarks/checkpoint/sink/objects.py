"""Objects with versions, and uploads in parts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from benchmarks.checkpoint.sink.memory import Blocks
from benchmarks.checkpoint.sink.wire import Body


class Refused(Exception):
    """S3's own error: its status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Stored:
    """One version of an object."""

    key: str
    version: str
    etag: str
    body: Body
    about: dict[str, str] = field(default_factory=dict)  # headers to be given with it: checksums, metadata
    parts: int = 0  # of its upload; 0: it came in one piece


class Objects:
    """A versioned bucket. Thread-safe."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._lock = threading.RLock()
        self._versions: dict[str, list[Stored]] = {}  # newest last
        self._uploads: dict[str, dict[int, tuple[str, Body]]] = {}
        self._heads: dict[str, tuple[str, dict[str, str]]] = {}  # of uploads: key, headers
        self._numbers = itertools.count(1)

    def put(self, key: str, body: Body, about: dict[str, str], create_only: bool, parts: int = 0) -> Stored:
        """Store a new version.

        Raises:
            Refused: it was to be created, and is there.
        """
        with self._lock:
            there = self._versions.setdefault(key, [])
            if create_only and there:
                raise Refused(412, "PreconditionFailed")
            number = next(self._numbers)
            etag = f"{number:032x}" + (f"-{parts}" if parts else "")
            there.append(Stored(key, f"v{number:08d}", f'"{etag}"', body, about, parts))
            return there[-1]

    def get(self, key: str, version: str = "") -> Stored:
        """The newest version, or this one.

        Raises:
            Refused: it is not there.
        """
        with self._lock:
            found = [each for each in self._versions.get(key, ()) if version in ("", each.version)]
        if not found:
            raise Refused(404, "NoSuchVersion" if version else "NoSuchKey")
        return found[-1]

    def delete(self, key: str, version: str = "") -> None:
        """Forget one version, or all of them; what is not there is no error, as in S3."""
        with self._lock:
            there = self._versions.pop(key, [])
            gone = [each for each in there if version in ("", each.version)]
            kept = [each for each in there if each not in gone]
            if kept:
                self._versions[key] = kept
        for each in gone:
            self._blocks.give_back(each.body.blocks)

    def list(self, prefix: str) -> Iterator[tuple[Stored, bool]]:
        """Versions under a prefix, by key and newest first, and whether each is the newest."""
        with self._lock:
            found = [(key, list(there)) for key, there in sorted(self._versions.items()) if key.startswith(prefix)]
        for _, there in found:
            for stored in reversed(there):
                yield stored, stored is there[-1]

    def flip(self, key: str, bit: int) -> None:
        """Damage the newest version as if it had been sent so: one bit is turned over, and no checksum of S3 tells."""
        at, left = self.get(key), bit // 8
        for segment in at.body.segments:
            if left < len(segment):
                segment[left] ^= 1 << bit % 8
                break
            left -= len(segment)
        else:
            raise Refused(400, "InvalidRange")
        about = {name: value for name, value in at.about.items() if not name.startswith("x-amz-checksum-")}
        with self._lock:
            self._versions[key][-1] = replace(at, about=about)

    def begin(self, key: str, about: dict[str, str]) -> str:
        """Begin an upload in parts; its id."""
        with self._lock:
            upload = f"u{next(self._numbers):08d}"
            self._uploads[upload], self._heads[upload] = {}, (key, about)
            return upload

    def part(self, upload: str, number: int, body: Body) -> str:
        """Store a part; its ETag.

        Raises:
            Refused: there is no such upload.
        """
        with self._lock:
            if upload not in self._uploads:
                raise Refused(404, "NoSuchUpload")
            etag = f'"{next(self._numbers):032x}"'
            old = self._uploads[upload].pop(number, None)
            self._uploads[upload][number] = etag, body
        if old is not None:
            self._blocks.give_back(old[1].blocks)
        return etag

    def complete(self, upload: str, create_only: bool) -> Stored:
        """Make an object of all parts.

        Raises:
            Refused: there is no such upload, or the object is there.
        """
        with self._lock:
            if upload not in self._uploads:
                raise Refused(404, "NoSuchUpload")
            parts = [body for _, (_, body) in sorted(self._uploads.pop(upload).items())]
            key, about = self._heads.pop(upload)
            whole = Body(
                [segment for part in parts for segment in part.segments],
                sum(part.size for part in parts),
                blocks=[block for part in parts for block in part.blocks],
            )
            try:
                return self.put(key, whole, about, create_only, len(parts))
            except Refused:
                self._blocks.give_back(whole.blocks)
                raise

    def abort(self, upload: str) -> None:
        """Forget an upload."""
        with self._lock:
            parts = self._uploads.pop(upload, {})
            self._heads.pop(upload, None)
        for _, body in parts.values():
            self._blocks.give_back(body.blocks)

    def copy(self, source: str, key: str) -> Stored:
        """A new object with the bytes of another one."""
        there = self.get(source)
        segments, taken = [], []
        for segment in there.body.segments:
            taken.append(self._blocks.take())
            taken[-1][: len(segment)] = segment
            segments.append(taken[-1][: len(segment)])
        return self.put(key, replace(there.body, segments=segments, blocks=taken), there.about, False)
