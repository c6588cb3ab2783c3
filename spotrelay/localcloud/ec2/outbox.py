"""Events on their way to the event bus, one after the other, in the order in which they happened."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Event = dict[str, Any]
_log = logging.getLogger(__name__)


def event(detail_type: str, account: str, region: str, arn: str, detail: dict[str, str], at: float) -> Event:
    """An `aws.ec2` event as EventBridge delivers it."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": "aws.ec2",
        "account": account,
        "time": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "resources": [arn],
        "detail": detail,
    }


class Outbox:
    """Hands events to the cloud from a thread of its own, so that nobody waits for a bus while holding a lock."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ec2-events", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Send an event after those already put."""
        self._queue.put(event)

    def close(self) -> None:
        """Send what was put, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._emit(event)
            except Exception:  # noqa: BLE001  # told in the log; later events still go out
                _log.exception("the bus did not take an event of the emulated EC2: %s", event)
