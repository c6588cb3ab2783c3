"""One shard on its way from the bucket to the places of its arrays, hashed while it passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from spotrelay.core.checkpoint import Shard
from spotrelay.core.errors import Contention, Damaged, Missing, Unavailable
from spotrelay.core.ports import ObjectStore, Stream
from trainer_shim.inventory import Span
from trainer_shim.landing import Place
from trainer_shim.pages import make_present
from trainer_shim.shards import LONGEST_HEADER, contents

Call = Callable[[Callable[[], Any]], Any]

CHUNK = 512 * 2**10  # bytes read and hashed in one go: what was read is still in the processor's cache
SMALL = 64 * 2**10  # bytes; shorter arrays are read together and then copied


def fetch_shard(
    shard: Shard,
    spans: Mapping[str, Span],
    places: Mapping[str, Place],
    objects: ObjectStore,
    cache: Path | None,
    call: Call,
    partial: bool = False,
) -> None:
    """Bring a shard's arrays to their places, and prove that its bytes are those that were saved.

    Args:
        spans: what the manifest says is in it.
        partial: there is more in it than that; the rest is only proven.
        call: runs a request, again while that is safe and may help.

    Raises:
        Damaged: they are others, twice, or gone; names the object. Its arrays' places hold anything then.
        OSError: the disk refuses an array that is kept there.
    """
    wanted = _Wanted(spans, places, partial)
    if _from_cache(shard, wanted, cache):
        return
    try:
        _from_bucket(shard, wanted, objects, call)
    except Damaged:
        _from_bucket(shard, wanted, objects, call)  # the way here may be what damaged it


def whole(key: str, version: str, objects: ObjectStore, call: Call, most: int) -> bytes:
    """A small object, as it is.

    Raises:
        Damaged: it is gone, or has more than `most` bytes.
    """
    with _Resumed(key, version, objects, call) as source:
        if source.size > most:
            raise Damaged(f"{key} has {source.size} bytes, more than any version writes", key, version)
        body = bytearray(source.size)
        source.fill(memoryview(body))
    return bytes(body)


def cached(key: str, cache: Path | None, most: int) -> bytes:
    """A small object as the agent fetched it, which may be anything; nothing where there is none."""
    if cache is None:
        return b""
    try:
        with _Held(cache / key.rpartition("/")[2]) as source:
            body = bytearray(source.size if source.size <= most else 0)
            source.fill(memoryview(body))
    except (OSError, Unavailable):
        return b""
    return bytes(body)


@dataclass(frozen=True)
class _Wanted:
    """What of a shard is wanted, and where it goes."""

    spans: Mapping[str, Span]
    places: Mapping[str, Place]
    partial: bool


def _from_bucket(shard: Shard, wanted: _Wanted, objects: ObjectStore, call: Call) -> None:
    with _Resumed(shard.key, shard.version_id, objects, call) as source:
        _land(shard, wanted, source)


def _from_cache(shard: Shard, wanted: _Wanted, cache: Path | None) -> bool:
    if cache is None:
        return False
    try:
        held = _Held(cache / shard.key.rpartition("/")[2])
    except OSError:
        return False
    try:
        with held:
            _land(shard, wanted, held)
    except (Damaged, Unavailable):
        return False  # a cache may always be wrong: the bucket is asked
    return True


def _land(shard: Shard, wanted: _Wanted, source: Stream) -> None:
    def damaged(what: str) -> Damaged:
        text = f"{shard.key} at version {shard.version_id} has other bytes than were saved: {what}"
        return Damaged(text, shard.key, shard.version_id)

    if source.size != shard.size:
        raise damaged(f"{source.size} of them instead of {shard.size}")
    digest = xxhash.xxh3_128()
    try:
        for window in _windows(shard.size, wanted):
            source.fill(window)
            digest.update(window)
    except ValueError as error:
        raise damaged(str(error)) from error
    if digest.hexdigest() != shard.digest:
        raise damaged("their digest differs")


def _windows(size: int, wanted: _Wanted) -> Iterator[memoryview]:
    """Memory for all of a shard's bytes, in their order; each view is filled before the next is asked for.

    Raises:
        ValueError: the shard holds something else than the manifest says.
    """
    data = sum(span.size for span in wanted.spans.values())
    head = bytearray(8)
    yield memoryview(head)
    length = int.from_bytes(head, "little")
    if length > min(size - data - 8, LONGEST_HEADER) or (not wanted.partial and length != size - data - 8):
        raise ValueError("its header has another length than the manifest leaves for it")
    header = bytearray(length)
    yield from _chunks(memoryview(header))
    block = _Block(wanted.places)
    for span, others in _in_order(header, size - length - 8, wanted):
        if span is None:
            yield from block.emptied()
            yield from _passing(others)
            continue
        memory = wanted.places[span.array].memory
        if memory is not None and span.size >= SMALL:
            yield from block.emptied()
            for chunk in _chunks(memory[span.start : span.start + span.size]):
                make_present(chunk)
                yield chunk
        else:
            yield from block.holding(span)
    yield from block.emptied()


def _in_order(header: bytearray, data: int, wanted: _Wanted) -> Iterator[tuple[Span | None, int]]:
    """What lies in the shard, one after the other: a span that is wanted, or so many bytes that are not."""
    found, spans = contents(header, data), wanted.spans
    if not spans.keys() <= found.keys() or (not wanted.partial and found.keys() != spans.keys()):
        raise ValueError("its header names other arrays than the manifest")
    for entry, (begin, end) in found.items():
        span = spans.get(entry)
        if span is not None and end - begin != span.size:
            raise ValueError(f"{entry} has another size than the manifest says")
        yield span, end - begin


def _passing(size: int) -> Iterator[memoryview]:
    """Memory for bytes that are only hashed."""
    memory = memoryview(bytearray(min(size, CHUNK)))
    for begin in range(0, size, CHUNK):
        yield memory[: min(CHUNK, size - begin)]


def _chunks(memory: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(memory), CHUNK):
        yield memory[begin : begin + CHUNK]


class _Block:
    """Memory through which small arrays pass together, and arrays that are kept in a file in parts."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._memory = memoryview(b"")
        self._held: list[Span] = []
        self._size = 0

    def holding(self, span: Span) -> Iterator[memoryview]:
        """Take this span too; what has to be filled before that comes out."""
        start, left = span.start, span.size
        while left:
            part = Span(span.array, start, min(left, CHUNK - self._size))
            self._held.append(part)
            self._size += part.size
            start, left = start + part.size, left - part.size
            if self._size == CHUNK:
                yield from self.emptied()

    def emptied(self) -> Iterator[memoryview]:
        """What is held comes out to be filled, and goes to its places."""
        if not self._size:
            return
        if not self._memory:
            self._memory = memoryview(bytearray(CHUNK))
        yield self._memory[: self._size]
        at = 0
        for part in self._held:
            self._places[part.array].put(part.start, self._memory[at : at + part.size])
            at += part.size
        self._held, self._size = [], 0


class _Resumed:
    """An object as a stream that goes on after every outage, at the byte where it broke off."""

    def __init__(self, key: str, version: str, objects: ObjectStore, call: Call) -> None:
        self._key = key
        self._version = version
        self._objects = objects
        self._call = call
        self._at = 0
        self._stream: Stream | None = None
        self.size = call(self._open).size

    def fill(self, view: memoryview) -> None:
        """Put the next bytes straight into this memory, all of it."""
        self._call(lambda: self._fill(view))

    def __enter__(self) -> _Resumed:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._stream is not None:
            self._stream.__exit__(None, None, None)
            self._stream = None

    def _fill(self, view: memoryview) -> None:
        stream = self._stream or self._open()
        try:
            stream.fill(view)
        except (Unavailable, Contention):
            self.__exit__()
            raise
        self._at += len(view)

    def _open(self) -> Stream:
        try:
            self._stream = self._objects.stream(self._key, self._version, self._at)
        except Missing as error:
            text = f"{self._key} at version {self._version} is gone from the bucket"
            raise Damaged(text, self._key, self._version) from error
        except Damaged as error:
            raise Damaged(str(error), self._key, self._version) from error
        return self._stream


class _Held:
    """A file of the agent's as a stream."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def fill(self, view: memoryview) -> None:
        """Put the next bytes straight into this memory, all of it."""
        while len(view):
            try:
                got = self._file.readinto(view)
            except OSError as error:
                raise Unavailable(f"the file cannot be read: {error}") from error
            if not got:
                raise Unavailable("the file became shorter while it was read")
            view = view[got:]

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()
