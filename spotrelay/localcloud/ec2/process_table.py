"""The operating system's process table: which processes belong to which instance. Linux only.

A process belongs to an instance when it descends from the instance's supervisor (orphans stay below it, since it is a
subreaper), or is in a session that the supervisor opened, or carries the instance's mark in its environment. Each
catches what escapes another: `env -i`, `setsid`, a double fork, a killed supervisor. Who does all of this at once is
found only by the cloud's outer process, which kills whatever is left below it.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "SPOTRELAY_LOCAL_INSTANCE"
"""Environment variable of every process of an instance; its value is the instance id."""

_PROC = "/proc"
_LONGEST = 1 << 20
_DEAD = "ZX"
_MARK_LINE = f"{MARK}=".encode()


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    """the kernel's letter: T is stopped, Z dead and not yet collected"""

    @property
    def lives(self) -> bool:
        """Whether it can still do anything."""
        return self.state not in _DEAD

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP holds it."""
        return self.state in "Tt"


class Census:
    """One look at the process table, from which several instances can be counted."""

    def __init__(self) -> None:
        self._table = _snapshot()
        self._children: dict[int, list[int]] = defaultdict(list)
        for process in self._table.values():
            self._children[process.parent].append(process.pid)
        self._marked: dict[str, set[int]] | None = None

    def of(self, mark: str, supervisor: int | None, session: int | None) -> list[Process]:
        """The living processes of one instance, without its supervisor.

        Args:
            mark: the instance's mark.
            supervisor: process id of its supervisor while that cannot have been given to another process.
            session: first session of the instance, likewise.
        """
        watched = supervisor is not None and supervisor in self._table and self._table[supervisor].lives
        pids = self._below(supervisor) if supervisor is not None else set()
        if session is not None:
            pids |= {process.pid for process in self._table.values() if process.session == session}
        if not watched:  # below a living supervisor nothing gets lost, so that environments need not be read
            pids |= self._marks().get(mark, set())
        pids -= {os.getpid(), supervisor or 0}
        return [self._table[pid] for pid in sorted(pids) if self._table[pid].lives]

    def _below(self, ancestor: int) -> set[int]:
        found: set[int] = set()
        queue = [ancestor]
        while queue:
            below = self._children.get(queue.pop(), [])
            found.update(below)
            queue.extend(below)
        return found

    def _marks(self) -> dict[str, set[int]]:
        if self._marked is None:
            self._marked = defaultdict(set)
            for pid in self._table:
                mark = _mark_of(pid)
                if mark:
                    self._marked[mark].add(pid)
        return self._marked


def send(processes: Iterable[Process], signum: signal.Signals) -> None:
    """Signal each; one that is already gone is none."""
    for process in processes:
        try:
            os.kill(process.pid, signum)
        except ProcessLookupError:
            continue


def _mark_of(pid: int) -> str:
    for line in _contents(pid, "environ").split(b"\0"):
        if line.startswith(_MARK_LINE):
            return line[len(_MARK_LINE) :].decode("ascii", "replace")
    return ""


def _snapshot() -> dict[int, Process]:
    """Every process of this machine, dead ones that nobody collected included."""
    pids = [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208  # looked at a lot
    read = (_read(pid) for pid in pids)
    return {process.pid: process for process in read if process is not None}


def _read(pid: int) -> Process | None:
    text = _contents(pid, "stat")
    if not text:
        return None
    state, parent, group, session = text[text.rindex(b")") + 2 :].split(b" ", 4)[:4]
    return Process(pid, int(parent), int(group), int(session), state.decode())


def _contents(pid: int, name: str) -> bytes:
    """A file of the process; empty for one that ended, or that belongs to somebody else."""
    try:
        file = os.open(f"{_PROC}/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, _LONGEST)
    except OSError:
        return b""
    finally:
        os.close(file)
