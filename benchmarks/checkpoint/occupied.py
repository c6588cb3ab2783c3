"""How much memory a process and its children occupy, at most and now."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path


def peak() -> int:
    """Most bytes that this process and its children occupied since `forget_peak`.

    Shared memory counts once, and so do the libraries that a child has mapped as its parent has.
    """
    own = os.getpid()
    total = _status(own)["VmHWM"]
    for child in _children(own):
        found = _status(child)
        total += found["VmHWM"] - found["RssShmem"] - found["RssFile"]
    return total


def now() -> int:
    """Bytes that this process occupies, after giving back what it can."""
    settle()
    return _status(os.getpid())["VmRSS"]


def forget_peak() -> None:
    """Begin to measure the peak anew."""
    for process in [os.getpid(), *_children(os.getpid())]:
        Path(f"/proc/{process}/clear_refs").write_text("5")


def settle() -> None:
    """Give freed memory back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(process: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        text = ""
    found = {"VmHWM": 0, "VmRSS": 0, "RssShmem": 0, "RssFile": 0}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            direct = [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [each for child in direct for each in (child, *_children(child))]
    return found
