"""A publisher that remembers and a switch that a test throws."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any


class MemoryPublisher:
    """Keeps every event in order, as it would look after the wire."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[tuple[str, dict[str, Any]]] = []

    def publish(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Remember one event."""
        wire = json.loads(json.dumps(dict(detail)))
        with self._lock:
            self._events.append((kind, wire))

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Everything published so far, oldest first."""
        with self._lock:
            return list(self._events)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Details of the events of one kind, oldest first."""
        return [detail for name, detail in self.events if name == kind]


class MemorySwitch:
    """The kill switch: launches are allowed until it is turned off."""

    def __init__(self, on: bool = True) -> None:
        self.on = on

    def launches_allowed(self) -> bool:
        """Whether anybody may launch at this moment."""
        return self.on
