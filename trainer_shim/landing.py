"""Memory that a checkpoint comes down in, and that belongs to nobody until all of it is proven.

An array that the script will own gets the very memory that it will live in. One that is copied into
what the script holds already is kept aside: up to a part of the state in memory, the rest in a file
without a name, so that a restore takes little more memory than what it restores.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

import numpy

from trainer_shim.inventory import ArraySpec, Inventory
from trainer_shim.voice import say

ASIDE = 0.2  # of the state: what may be kept aside in memory
ASIDE_LEAST = 16 * 2**20  # bytes that may be kept aside whatever the state's size
SEGMENT = 8 * 2**20  # bytes of arrays that share a part of the file, at least; given back together
LARGE = 2**20  # bytes from which an array's memory is its own mapping, given back at once
ALIGNMENT = 64  # bytes, as frameworks align their own arrays


class Place(Protocol):
    """Where one array comes down."""

    @property
    def memory(self) -> memoryview | None:
        """All of it, to be filled directly; None where only `put` reaches it."""
        ...

    def put(self, start: int, data: memoryview) -> None:
        """Write some of it.

        Raises:
            OSError: the disk refuses.
        """
        ...

    def take(self) -> memoryview:
        """The array's bytes, whole, in memory that nobody else uses."""
        ...


def landing(found: Inventory, copied: Callable[[str], bool], folder: Path | None) -> dict[str, Place]:
    """A place for every array of a checkpoint.

    Args:
        copied: whether an array is copied into what the script holds already.
        folder: where a file may take what is too much for memory; None: nowhere.
    """
    budget = max(int(ASIDE * found.size), ASIDE_LEAST) if folder is not None else found.size
    places: dict[str, Place] = {}
    overflow: list[ArraySpec] = []
    for name, spec in sorted(found.arrays.items()):
        aside = copied(name)
        if aside and spec.size > budget:
            overflow.append(spec)
            continue
        budget -= spec.size if aside else 0
        places[name] = InMemory(spec.size)
    if overflow and folder is not None:
        places.update(_spilled(overflow, folder))
    return places


def fresh(size: int) -> memoryview:
    """Memory that nobody else uses, aligned as a framework's own."""
    if size >= LARGE:
        # Huge pages are not asked for: to find and clear them costs three times as much as the small ones.
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    raw = numpy.empty(size + ALIGNMENT, numpy.uint8)
    skipped = -raw.ctypes.data % ALIGNMENT
    return raw[skipped : skipped + size].data


class InMemory:
    """An array in memory of its own."""

    def __init__(self, size: int) -> None:
        self.memory: memoryview = fresh(size)

    def put(self, start: int, data: memoryview) -> None:
        """Write some of it."""
        self.memory[start : start + len(data)] = data

    def take(self) -> memoryview:
        """The array's bytes."""
        return self.memory


class Segment:
    """A part of the file, mapped when it is read, given back when none of its arrays is used any more."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self.offset = offset  # a multiple of the page's size
        self.file = file
        self._size = size
        self._mapped: memoryview | None = None

    def view(self) -> memoryview:
        """Its bytes; writable, and what is written stays out of the file."""
        if self._mapped is None:
            private = mmap.mmap(
                self.file.fileno(), self._size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=self.offset
            )
            self._mapped = memoryview(private)
        return self._mapped


class Spilled:
    """An array in a part of the file."""

    memory = None

    def __init__(self, segment: Segment, offset: int, size: int) -> None:
        self._segment = segment
        self._offset = offset  # within the segment
        self._size = size

    def put(self, start: int, data: memoryview) -> None:
        """Write some of it."""
        at = self._segment.offset + self._offset + start
        while len(data):
            written = os.pwrite(self._segment.file.fileno(), data, at)
            data, at = data[written:], at + written

    def take(self) -> memoryview:
        """The array's bytes."""
        return self._segment.view()[self._offset : self._offset + self._size]


def _spilled(overflow: list[ArraySpec], folder: Path) -> dict[str, Place]:
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as an array in it
        return dict(_laid_out(overflow, file))
    except (OSError, AttributeError) as error:  # full, forbidden, or a system without such files
        size = sum(spec.size for spec in overflow)
        say(f"{size} bytes are kept in memory during the restore, the disk does not take them: {error}")
        return {spec.name: InMemory(spec.size) for spec in overflow}


def _laid_out(overflow: list[ArraySpec], file: IO[bytes]) -> list[tuple[str, Place]]:
    """Every array's place in the file, whose room is taken now: a full disk refuses before the first byte."""
    places: list[tuple[str, Place]] = []
    begin = 0
    while overflow:
        size = count = 0
        offsets = []
        while count < len(overflow) and size < SEGMENT:
            offsets.append(size)
            size += -(-overflow[count].size // ALIGNMENT) * ALIGNMENT
            count += 1
        segment = Segment(file, begin, size)
        places += [
            (spec.name, Spilled(segment, offset, spec.size))
            for spec, offset in zip(overflow[:count], offsets, strict=True)
        ]
        overflow = overflow[count:]
        begin += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    os.posix_fallocate(file.fileno(), 0, begin)
    return places
