"""Where malformed events go: into the log, whole, counted under an alarm, and out of the queue.

They are not sent to the queue's dead-letter queue: that one holds what failed and is worth
sending again, and a function that may only consume its queue needs no right to send to another.
"""

from __future__ import annotations

import base64

from handlers.settings import QUARANTINED
from handlers.signals import Quarantined
from handlers.telemetry import Telemetry

PART = 90_000  # bytes of an event in one line: 120,000 characters, well within a log event


def quarantine(event: Quarantined, message_id: str, telemetry: Telemetry) -> None:
    """Keep a malformed event where a person finds it; joining the parts gives back every byte."""
    parts = [event.data[at : at + PART] for at in range(0, len(event.data), PART)] or [b""]
    for number, part in enumerate(parts, start=1):
        telemetry.error(
            "event quarantined",
            reason=event.reason,
            message_id=message_id,
            part=f"{number}/{len(parts)}",
            bytes_base64=base64.b64encode(part).decode(),
        )
    telemetry.count(QUARANTINED)
