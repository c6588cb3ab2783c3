"""What is due when, done in time by a few threads."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_WORKERS = 8
_log = logging.getLogger(__name__)


class Agenda:
    """Runs functions at a later time; those that are due together run side by side."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="ec2")
        self._thread = threading.Thread(target=self._run, name="ec2-agenda", daemon=True)
        self._thread.start()

    def after(self, delay_s: float, deed: Callable[[], None]) -> None:
        """Have `deed` done in `delay_s` seconds; never once the agenda is closed."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), deed))
            self._changed.notify()

    def stop(self) -> None:
        """Forget what is not yet due."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
        self._thread.join()

    def close(self) -> None:
        """Stop, and wait for what is under way."""
        self.stop()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                deed = heapq.heappop(self._due)[2]
            self._pool.submit(_do, deed)


def _do(deed: Callable[[], None]) -> None:
    try:
        deed()
    except Exception:  # noqa: BLE001  # told in the log; the other deeds go on
        _log.exception("the emulated EC2 failed to do what was due")
