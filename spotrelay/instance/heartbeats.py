"""Signs of life while the machine is prepared; the shim beats from the moment it has attached."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.ports import LiveStore
from spotrelay.instance.logbook import Logbook


class Beater:
    """Beats in the background until it is stopped or the shim takes over."""

    def __init__(
        self,
        live: LiveStore,
        logbook: Logbook,
        run_id: str,
        generation: int,
        every: timedelta,
        attached: Path,
        trouble: Callable[[], str] = str,
    ) -> None:
        self._live = live
        self._logbook = logbook
        self._run_id = run_id
        self._generation = generation
        self._every = every.total_seconds()
        self._attached = attached
        self._trouble = trouble
        self.node = 0  # rank of this machine in its gang
        self.address = ""
        self._counter = 0
        self._phase = Phase.BOOT
        self._refused = False
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat at once, and from then on."""
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        """Tell at once that the attempt has come this far."""
        self._phase = phase
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether further beats will come."""
        return self._thread.is_alive()

    def stop(self, within: timedelta) -> None:
        """No more beats; one that is under way may end within this time."""
        self._stopped = True
        self._wake.set()
        if self.alive:
            self._thread.join(within.total_seconds())

    def _beat_on(self) -> None:
        while not self._stopped and not self._attached.exists():
            self._wake.clear()
            self._beat()
            self._wake.wait(self._every)

    def _beat(self) -> None:
        self._counter += 1
        beat = Heartbeat(
            self._run_id, self._generation, self._counter, self._phase,
            trouble=self._trouble(), node=self.node, address=self.address,
        )  # fmt: skip
        try:
            self._live.beat(beat)
        except SpotrelayError as error:
            if not self._refused:
                self._logbook.say(f"no heartbeat can be written, going on without: {error}")
            self._refused = True
        else:
            if self._refused:
                self._logbook.say("heartbeats are written again")
            self._refused = False
