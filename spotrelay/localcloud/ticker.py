"""Schedules at the demo's pace: a schedule's own target, called with its own input under its own role."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("spotrelay.localcloud")


class Ticker:
    """Calls something every so many seconds, one call after the other, until stopped."""

    def __init__(self, name: str, every_s: float, call: Callable[[], None]) -> None:
        self.name = name
        self.every_s = every_s
        self.calls = 0
        self.failures = 0
        self._call = call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ticker-{name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No call starts after this returns."""
        self._stopped.set()
        self._thread.join()

    def described(self) -> dict[str, Any]:
        """Its state, for the control API."""
        return {"schedule": self.name, "every_s": self.every_s, "calls": self.calls, "failures": self.failures}

    def _run(self) -> None:
        while not self._stopped.wait(self.every_s):
            self.calls += 1
            try:
                self._call()
            except Exception:  # noqa: BLE001  # whatever the target did, the schedule goes on
                self.failures += 1
                _log.exception("the target of schedule %s failed", self.name)
