"""Processes of this machine: who descends from whom, and how none is left behind. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_PROC = Path("/proc")
_SETTLE_S = 0.02


class Alias:
    """A short name of a folder, for as long as this process keeps it open.

    The path of a Unix socket may have 107 bytes, and programs put their sockets into TMPDIR.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """The name is no longer valid; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def become_subreaper() -> None:
    """Let every orphan below this process become its child, so that none escapes by a double fork."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send this process `signum` when the thread that started it ends.

    Only for a parent whose main thread started this process: the kernel watches the thread, not the process.
    """
    _prctl(PR_SET_PDEATHSIG, signum)


def descendants(ancestor: int) -> list[int]:
    """Every living process below `ancestor`, nearest first; zombies are not counted."""
    return list(states_below(ancestor))


def states_below(ancestor: int) -> dict[int, str]:
    """The living processes below `ancestor`, nearest first, with the kernel's state letters ("T" is stopped)."""
    children: dict[int, list[int]] = defaultdict(list)
    states: dict[int, str] = {}
    for entry in _PROC.iterdir():
        seen = _state_and_parent(int(entry.name)) if entry.name.isdigit() else None
        if seen is not None:
            states[int(entry.name)], parent = seen
            children[parent].append(int(entry.name))
    found: list[int] = []
    queue = [ancestor]
    while queue:
        below = children.get(queue.pop(0), [])
        queue.extend(below)
        found.extend(below)
    return {pid: states[pid] for pid in found if states[pid] not in "ZX"}


def kill_descendants(patience_s: float = 10.0) -> list[int]:
    """SIGKILL everything below this process until nothing is left, and reap it.

    Returns the processes that were still there after `patience_s` (asleep in the kernel); empty as a rule.
    """
    deadline = time.monotonic() + patience_s
    while True:
        remaining = descendants(os.getpid())
        for pid in remaining:
            send_signal(pid, signal.SIGKILL)
        reap()
        if not remaining or time.monotonic() > deadline:
            return descendants(os.getpid())
        time.sleep(_SETTLE_S)


def reap() -> dict[int, int]:
    """Collect every dead child; process id → wait status."""
    collected: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return collected
        if pid == 0:
            return collected
        collected[pid] = status


def send_signal(pid: int, signum: int) -> bool:
    """Signal one process; False when it is already gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text.rsplit(")", 1)[1].split()[:2]
    return state, int(parent)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) was refused")
