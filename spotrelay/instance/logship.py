"""The log as it grows: chunks in S3, each written once, in order."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

from spotrelay.core.errors import AlreadyExists, SpotrelayError
from spotrelay.core.ports import ObjectStore
from spotrelay.instance.logbook import Logbook


def chunk_key(run_id: str, generation: int, sequence: int, node: int = 0) -> str:
    """Where a chunk lives; sequence 0 is the resume script's, the agent's start at 1."""
    which = f"-{node:03d}" if node else ""
    return f"runs/{run_id}/logs/{generation:06d}/{sequence:06d}{which}.log"


class LogShipper:
    """Ships a logbook in the background until it is closed."""

    def __init__(self, objects: ObjectStore, logbook: Logbook, run_id: str, generation: int, every: timedelta) -> None:
        self._objects = objects
        self._logbook = logbook
        self._run_id = run_id
        self._generation = generation
        self._every = every.total_seconds()
        self._sequence = 1
        self._chunk = b""
        self._closing = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._ship_on, name="log", daemon=True)
        self.node = 0  # rank of this machine in its gang, once it is known
        self.trouble = ""  # why the last chunk was refused; empty while all is well

    def start(self) -> None:
        """Begin to ship in the background."""
        self._thread.start()

    def flush(self, within: timedelta) -> bool:
        """Ship everything there is, trying again until `within` is over; whether all of it is in S3."""
        until = time.monotonic() + within.total_seconds()
        pause = self._every / 8
        while not self._ship(everything=True):
            if time.monotonic() + pause >= until:
                return False
            time.sleep(pause)
            pause = min(pause * 2, self._every)
        return True

    def close(self, within: timedelta) -> bool:
        """Stop, and ship the rest; whether all of it is in S3."""
        self._closing.set()
        return self.flush(within)

    def _ship_on(self) -> None:
        while not self._closing.wait(self._every):
            self._ship(everything=False)

    def _ship(self, everything: bool) -> bool:
        """Ship what is ready; False when S3 refused a chunk, which is kept for the next time."""
        with self._one_at_a_time:
            while True:
                self._chunk = self._chunk or self._logbook.take(everything)
                if not self._chunk:
                    return True
                if not self._put():
                    return False

    def _put(self) -> bool:
        key = chunk_key(self._run_id, self._generation, self._sequence, self.node)
        try:
            try:
                self._objects.put(key, self._chunk)
                ours = True
            except AlreadyExists:
                ours = self._objects.get(key) == self._chunk  # an earlier try of ours whose reply was lost
        except SpotrelayError as error:
            if not self.trouble:
                self._logbook.say(f"the log cannot be shipped to S3 and is kept in memory: {error}")
            self.trouble = f"log: {error}"
            return False
        self.trouble = ""
        self._sequence += 1
        if ours:
            self._chunk = b""
        return True
