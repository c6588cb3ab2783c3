"""Memory that nobody has touched yet, made present in one go: a fault for each page costs more than clearing it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older kernel refuses, and pages come one by one


def make_present(memory: memoryview) -> None:
    """Let the pages that lie wholly within these bytes exist. Only advice: where it fails, their first use does it."""
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (begin + len(memory) - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if size > 0:
        _madvise(first, size, POPULATE_WRITE)


def _found() -> Callable[[int, int, int], int]:
    try:
        found = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):  # a system without it
        return lambda *_: 0
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


_madvise = _found()
