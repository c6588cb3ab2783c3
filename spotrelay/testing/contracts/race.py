"""Threads that start together, for the races that every suite ends in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from spotrelay.core.errors import Contention, OutcomeUnknown, SpotrelayError

T = TypeVar("T")

RACERS = 8
LINE_S = 60  # seconds after which a starting line that is not reached is an error


def race(racers: Sequence[Callable[[], T]]) -> list[T | SpotrelayError]:
    """What each racer returned, or the error of ours that it met; any other error is raised here."""
    line = threading.Barrier(len(racers))

    def run(racer: Callable[[], T]) -> T | SpotrelayError:
        line.wait(LINE_S)
        try:
            return racer()
        except SpotrelayError as error:
            return error

    with ThreadPoolExecutor(len(racers)) as pool:
        return list(pool.map(run, racers))


def persistent(act: Callable[[], T]) -> T:
    """Do it, and again whenever nothing was written or nobody can tell."""
    while True:
        try:
            return act()
        except (Contention, OutcomeUnknown):
            continue


def of_kind(outcomes: Sequence[T | SpotrelayError], kind: type[SpotrelayError]) -> int:
    """How many outcomes are errors of this kind."""
    return sum(isinstance(outcome, kind) for outcome in outcomes)
