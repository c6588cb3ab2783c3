"""Takes the attempt's leave in place of a training loop whose step does not end before the machine goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from spotrelay.core.cadence import LastSave
from trainer_shim.checkpointer import Checkpointer
from trainer_shim.watcher import Ending, Watcher

SLICE_S = 0.05  # between looks
NEW = (LastSave.NEW, LastSave.FINISH_THEN_NEW)


class Understudy:
    """Decides beside the loop. As long as a new save may still fit after the step, it only waits.

    Otherwise the save under way is the last one: it is let finish from memory, and then the lease is given back, so
    that the next attempt need not wait for the machine's end. The loop may come in time after all: whoever is first
    takes the leave.
    """

    def __init__(self, watcher: Watcher, saver: Checkpointer, leave: Callable[[Ending], None]) -> None:
        self._watcher = watcher
        self._saver = saver
        self._leave = leave
        self._turn = threading.Lock()  # acquired once, for good, by whoever takes the leave
        self._stopped = threading.Event()
        self._left = threading.Event()

    def start(self) -> None:
        """Begin to watch for an ending."""
        threading.Thread(target=self._run, name="spotrelay-understudy", daemon=True).start()

    def stop(self) -> None:
        """Watch no more: the loop is at a boundary, or over."""
        self._stopped.set()

    @property
    def has_left(self) -> bool:
        """Whether somebody has taken the leave."""
        return self._turn.locked()

    def yields(self) -> bool:
        """Whether the loop may take the leave itself; if not, it has been taken."""
        self._stopped.set()
        return self._turn.acquire(blocking=False)

    def wait(self, seconds: float) -> None:
        """Let the leave that was begun beside the loop come to its end."""
        self._left.wait(seconds)

    def _run(self) -> None:
        while not self._stopped.wait(SLICE_S):
            ending = self._watcher.ending
            if ending is not None and not self._worth_waiting(ending.deadline - time.monotonic()):
                if self._turn.acquire(blocking=False):
                    self._leave(ending)
                    self._left.set()
                return

    def _worth_waiting(self, left_s: float) -> bool:
        if left_s <= 0:
            return False
        flight = self._saver.flight
        flying = flight is not None and not flight.over.is_set()
        return flying or self._saver.last_save(left_s, at_boundary=False) in NEW
