"""Memory that was touched before: fresh pages would cost the sink ten times what the copy into it costs."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable

BLOCK = 2**20  # bytes


class OutOfMemory(Exception):
    """Every block holds something. Delete objects, or start the sink with more."""


class Blocks:
    """Warm memory, given out and taken back in blocks."""

    def __init__(self, size: int) -> None:
        count = max(-(-size // BLOCK), 1)
        self._memory = mmap.mmap(-1, count * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        whole = memoryview(self._memory)
        for start in range(0, count * BLOCK, mmap.PAGESIZE):
            whole[start] = 0
        self._lock = threading.Lock()
        self._free = [whole[start : start + BLOCK] for start in range(0, count * BLOCK, BLOCK)]

    @property
    def free_bytes(self) -> int:
        """What could still be stored."""
        return len(self._free) * BLOCK

    def take(self) -> memoryview:
        """One block.

        Raises:
            OutOfMemory: there is none.
        """
        with self._lock:
            if not self._free:
                raise OutOfMemory
            return self._free.pop()

    def give_back(self, blocks: Iterable[memoryview]) -> None:
        """Take blocks back."""
        with self._lock:
            self._free.extend(blocks)
