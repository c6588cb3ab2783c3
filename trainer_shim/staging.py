"""The staging buffer: host memory that is allocated once, reused by every save, and shared with the uploader.

Copying into memory that was never touched runs at a tenth of the speed of a warm copy, so the
buffer is warmed beside the training. Workers forked later do not inherit it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from trainer_shim.shards import Plan

CLOSED = -1  # in place of a place

Pin = Callable[[int, int], Callable[[], None]]  # address and bytes; returns what undoes it


class StagingBuffer:
    """One buffer, at most one save in it at a time.

    Args:
        pin: registers memory with a device, so that copies from there run at full speed.
    """

    def __init__(self, pin: Pin | None = None) -> None:
        self.generation = 0  # grows when the memory is another one
        self.descriptor: int | None = None  # of the memory, for another process; None where it cannot be shared
        self._memory: mmap.mmap | None = None
        self._warming: threading.Thread | None = None
        self._pin = pin
        self._unpin: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        """Bytes held."""
        return 0 if self._memory is None else len(self._memory)

    def reserve(self, size: int) -> memoryview:
        """The buffer, at least `size` bytes long, warm. What was in it is lost."""
        self.prepare(size)
        if self._warming is not None:
            self._warming.join()
            self._warming = None
        assert self._memory is not None
        return memoryview(self._memory)

    def prepare(self, size: int) -> None:
        """Begin to allocate and warm at least `size` bytes, beside whatever else is going on."""
        if self._memory is not None and len(self._memory) >= size:
            return
        if self._warming is not None:
            self._warming.join()
        self._let_go()
        self.generation += 1
        memory = self._memory = self._map(max(size, mmap.PAGESIZE))
        for advice in ("MADV_DONTFORK", "MADV_HUGEPAGE"):
            if hasattr(mmap, advice):
                _advise(memory, getattr(mmap, advice))
        warming = threading.Thread(target=self._warm, args=(memory,), name="spotrelay-warm", daemon=True)
        try:
            warming.start()
        except RuntimeError:  # no thread can be had: it warms by its first use
            return
        self._warming = warming

    def _map(self, size: int) -> mmap.mmap:
        try:
            descriptor = os.memfd_create("spotrelay-staging", os.MFD_CLOEXEC)
        except (AttributeError, OSError):  # no such thing here: the uploads stay in this process
            return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return memory

    def _warm(self, memory: mmap.mmap) -> None:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.memset(address, 0, len(memory))
        if self._pin is not None:
            self._unpin = self._pin(address, len(memory))

    def _let_go(self) -> None:
        # Views of the old memory may live on in what was made of them; it is freed with the last one.
        self._unpin()
        self._unpin = lambda: None
        self._memory = None
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self._let_go()


class Places:
    """Where in the staging buffer each shard of a save stands.

    Where the buffer holds the whole plan every shard has a place of its own; in a smaller one they
    take turns, and a shard waits for a place until another has been sent.

    Args:
        size: bytes of the buffer.
        patience_s: to wait for a place.
    """

    def __init__(self, plan: Plan, size: int, patience_s: float) -> None:
        self.whole = size >= plan.size
        self._plan = plan
        self._patience_s = patience_s
        self._begins: dict[int, int] = {}
        self._free: SimpleQueue[int] = SimpleQueue()
        if not self.whole:
            width = _aligned(plan.longest)
            for slot in range(size // width):
                self._free.put(slot * width)

    def take(self, shard: int) -> None:
        """Give this shard a place.

        Raises:
            TimeoutError: none became free in time, or the save was given up.
        """
        if self.whole:
            return
        try:
            begin = self._free.get(timeout=self._patience_s)
        except Empty:
            begin = CLOSED
        if begin == CLOSED:
            raise TimeoutError("the bucket takes shards too slowly for the staging buffer's bound")
        self._begins[shard] = begin

    def begin_of(self, shard: int) -> int:
        """The first byte of the place that this shard has."""
        return self._plan.shards[shard].begin if self.whole else self._begins[shard]

    def free(self, shard: int) -> None:
        """This shard has been sent; another may have its place."""
        if not self.whole:
            self._free.put(self._begins.pop(shard))

    def close(self) -> None:
        """No place will become free any more."""
        self._free.put(CLOSED)


def room_for(plan: Plan, most: int | None) -> int:
    """Bytes of staging buffer for this plan, under a bound; two of its shards have to fit at the least."""
    return plan.size if most is None else min(plan.size, max(most, 2 * _aligned(plan.longest)))


def _aligned(size: int) -> int:
    return -(-size // 4096) * 4096


def _advise(memory: mmap.mmap, advice: int) -> None:
    try:
        memory.madvise(advice)
    except OSError:  # a kernel without it: slower, not wrong
        return
