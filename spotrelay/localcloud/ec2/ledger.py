"""What happened to each instance, as lines of JSON in a file: an account from outside the control plane's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Ledger:
    """Appends to `instances.jsonl`; thread-safe."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, what: str, instance_id: str, **facts: Any) -> None:
        """Add one line; what comes after `close` is not part of the account."""
        line = json.dumps({"at": self._clock(), "what": what, "instance_id": instance_id, **facts})
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def close(self) -> None:
        """End the account."""
        with self._lock:
            self._file.close()
