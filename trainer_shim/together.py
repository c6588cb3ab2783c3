"""Several requests at once, on threads that never keep a process from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

CONNECTIONS = 8  # requests at the same time


def together(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`work` done to every item, in their order.

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
        for number in range(min(CONNECTIONS, len(items)) - 1)
    ]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]
