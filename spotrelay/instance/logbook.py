"""The attempt's log in memory: the program's output and the agent's own lines, until they are shipped."""

from __future__ import annotations

import threading
import time
from typing import BinaryIO

TAIL_BYTES = 4096
PENDING_BYTES = 8 * 1024 * 1024  # kept while S3 refuses; the oldest go first
CHUNK_BYTES = 1024 * 1024


class Logbook:
    """Takes lines from many threads and never blocks or fails its writers.

    Nothing of it is on disk, so that a full disk is still reported. Values of the program's
    environment never get here.
    """

    def __init__(self, console: BinaryIO | None = None, pending_bytes: int = PENDING_BYTES) -> None:
        self._console = console
        self._limit = pending_bytes
        self._lock = threading.Lock()
        self._pending = bytearray()
        self._tail = bytearray()
        self._started = time.monotonic()
        self._dropped = 0

    def say(self, text: str) -> None:
        """Add a line of the agent's own, and show it on the machine's console."""
        line = f"spotrelay +{time.monotonic() - self._started:.1f}s: {text}\n".encode("utf-8", "replace")
        with self._lock:
            if self._tail and not self._tail.endswith(b"\n"):
                self._add(b"\n")
            self._add(line)
            self._show(line)

    def write(self, data: bytes) -> None:
        """Add output of the program, as it came."""
        with self._lock:
            self._add(data)

    def take(self, everything: bool = False) -> bytes:
        """Remove and return what may be shipped now: whole lines, at most a chunk; empty when none.

        Args:
            everything: the last line too, although it has no end yet.
        """
        with self._lock:
            ready = self._pending[:CHUNK_BYTES]
            if not everything and len(ready) < CHUNK_BYTES:
                ready = ready[: ready.rfind(b"\n") + 1]
            del self._pending[: len(ready)]
            dropped, self._dropped = self._dropped, 0
        lost = f"\nspotrelay: {dropped} bytes of log were lost, because they could not be shipped\n".encode()
        return lost + bytes(ready) if dropped else bytes(ready)

    def tail(self, limit: int = TAIL_BYTES) -> str:
        """The newest lines, at most `limit` bytes of UTF-8."""
        with self._lock:
            text = bytes(self._tail[-limit:]).decode("utf-8", "replace")
        while len(text.encode()) > limit:  # a replaced byte is three bytes long
            text = text[len(text) // 16 + 1 :]
        return text

    def _add(self, data: bytes) -> None:
        self._pending += data
        excess = len(self._pending) - self._limit
        if excess > 0:
            del self._pending[:excess]
            self._dropped += excess
        self._tail += data[-TAIL_BYTES:]
        del self._tail[:-TAIL_BYTES]

    def _show(self, line: bytes) -> None:
        if self._console is None:
            return
        try:
            self._console.write(line)
            self._console.flush()
        except OSError:
            self._console = None  # a full disk or a closed console must not end the training
