"""Several requests at once, on threads that never keep a process from ending."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

# Requests at the same time. One connection to S3 carries about 90 MB/s, and a core several of them.
CONNECTIONS = max(8, min(32, 2 * (os.cpu_count() or 1)))


def together(work: Callable[[A], B], items: Sequence[A], connections: int = CONNECTIONS) -> list[B]:
    """`work` done to every item, in their order, `connections` of them at the same time.

    The first failure ends the rest before they begin and is raised once none is under way.
    """
    results: dict[int, B] = {}
    failures: list[BaseException] = []
    waiting = iter(range(len(items)))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                index = None if failures else next(waiting, None)
            if index is None:
                return
            try:
                results[index] = work(items[index])
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)

    threads = [
        threading.Thread(target=run, name=f"spotrelay-io-{number}", daemon=True)
        for number in range(min(connections, len(items)) - 1)
    ]
    begun = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # no more threads, as when the process ends: those that there are do it all
            break
        begun.append(thread)
    run()
    for thread in begun:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]
