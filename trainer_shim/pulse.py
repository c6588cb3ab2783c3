"""The heartbeat: a counter that grows, and how far the attempt has come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.ports import LiveStore
from trainer_shim.environment import Identity
from trainer_shim.voice import say

LEAP = 2  # above the agent's last beat, in case it is just writing one more


class Pulse:
    """Writes the newest sign of life, again and again, in a thread of its own."""

    def __init__(self, store: LiveStore, identity: Identity) -> None:
        self._store = store
        self._every_s = identity.timings.beat.total_seconds()
        self._lock = threading.Lock()
        self._beat = Heartbeat(identity.run_id, identity.generation, 0, Phase.WAITING, address=identity.address)
        self._sources: dict[str, Callable[[], str]] = {}
        self._errands: list[Callable[[], None]] = []
        self._listeners: list[Callable[[str], None]] = []
        self._asked = ""  # the newest word of the control plane
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def start(self, counter: int) -> None:
        """Begin, above the counter that the attempt's agent has reached."""
        with self._lock:
            self._beat = replace(self._beat, counter=counter + LEAP)
        self._thread = threading.Thread(target=self._run, name="spotrelay-heartbeat", daemon=True)
        self._thread.start()

    def set(self, at_once: bool = False, **changes: Any) -> None:
        """Change what the next beat says, and perhaps send it now."""
        with self._lock:
            self._beat = replace(self._beat, **changes)
        if at_once:
            self._wake.set()

    def watch_trouble(self, source: str, trouble: Callable[[], str]) -> None:
        """Ask this before every beat for what does not work at present."""
        with self._lock:
            self._sources[source] = trouble

    def send_with(self, errand: Callable[[], None]) -> None:
        """Run this after every beat; it raises nothing."""
        with self._lock:
            self._errands.append(errand)

    def listen(self, heed: Callable[[str], None]) -> None:
        """Hand each new word that the control plane has for this attempt to this; it raises nothing."""
        with self._lock:
            self._listeners.append(heed)

    def beat_now(self) -> None:
        """Write one beat, here and now; a failure is no reason to stop."""
        with self._lock:
            trouble = "; ".join(text for text in (ask() for ask in self._sources.values()) if text)
            self._beat = replace(self._beat, counter=self._beat.counter + 1, trouble=trouble[:500])
            beat = self._beat
        try:
            asked = self._store.beat(beat)
            self._failing = False
        except SpotrelayError as error:
            if not self._failing:
                say(f"the heartbeat cannot be written, training goes on: {error}")
            self._failing = True
        else:
            self._heed(asked)
        for errand in list(self._errands):
            errand()

    def _heed(self, asked: str) -> None:
        if asked == self._asked:
            return
        self._asked = asked
        for heed in list(self._listeners):
            heed(asked)

    def stop(self) -> None:
        """Beat once more and end the thread."""
        if self._thread is None or self._stopped.is_set():
            return
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=self._every_s + 5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.beat_now()
            except Exception as error:  # noqa: BLE001 - a heart that stops would end a healthy machine
                say(f"a heartbeat failed, training goes on: {type(error).__name__}: {error}")
            self._wake.wait(self._every_s)
            self._wake.clear()
        self.beat_now()
