"""Ranks that are threads of one process, for what needs no training."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

from trainer_shim.ranks import Numbers, Parted, Ranks


class ThreadRanks:
    """One of several ranks; `crew` makes all of them."""

    watches = True

    def __init__(self, rank: int, size: int, meeting: Meeting, aside: list[Meeting]) -> None:
        self.rank = rank
        self.size = size
        self._meeting = meeting
        self._aside = aside
        self._calls = 0

    def compare(self, numbers: Numbers) -> Callable[[float], Numbers]:
        """See `trainer_shim.ranks.Ranks`."""
        call = self._say(list(numbers))
        return lambda within_s: [max(each) for each in zip(*self._meeting.hear(call, within_s), strict=True)]

    def gather(self, value: Any, within_s: float) -> list[Any]:
        """See `trainer_shim.ranks.Ranks`."""
        return copy.deepcopy(self._meeting.hear(self._say(value), within_s))

    def beside(self) -> Ranks:
        """See `trainer_shim.ranks.Ranks`."""
        return ThreadRanks(self.rank, self.size, self._aside[0], self._aside[1:])

    def leave(self) -> None:
        """What the death of a process does to the others."""
        self._meeting.part()

    def _say(self, value: Any) -> int:
        call = self._calls
        self._calls += 1
        self._meeting.say(call, self.rank, value)
        return call


class Meeting:
    """What was said at each call, by rank."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._said: dict[int, dict[int, Any]] = {}
        self._changed = threading.Condition()
        self._over = False

    def say(self, call: int, rank: int, value: Any) -> None:
        with self._changed:
            self._said.setdefault(call, {})[rank] = value
            self._changed.notify_all()

    def hear(self, call: int, within_s: float) -> list[Any]:
        until = time.monotonic() + min(within_s, 20.0)
        with self._changed:
            while len(self._said[call]) < self._size:
                if self._over or not self._changed.wait(until - time.monotonic()):
                    raise Parted("another rank has left")
            return [self._said[call][rank] for rank in range(self._size)]

    def part(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()


def crew(size: int) -> list[ThreadRanks]:
    """All ranks of one attempt."""
    meetings = [Meeting(size) for _ in range(3)]
    return [ThreadRanks(rank, size, meetings[0], meetings[1:]) for rank in range(size)]


def on_all(ranks: list[ThreadRanks], work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What `work` returned on each rank, or the exception that it raised."""
    found: dict[int, Any] = {}

    def one(ranks: ThreadRanks) -> None:
        try:
            found[ranks.rank] = work(ranks)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            found[ranks.rank] = error

    threads = [threading.Thread(target=one, args=(each,), daemon=True) for each in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [found[rank] for rank in range(len(ranks))]
