"""Our own events, onto the home bus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spotrelay.aws.error_codes import THROTTLES, bare
from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.errors import Contention, Unavailable

SOURCE = "spotrelay"  # what we tell ourselves
RUN_SOURCE = "spotrelay.run"  # what we tell users
FOR_USERS = frozenset({"Run Status Changed"})


class BusPublisher:
    """A `Publisher` onto one EventBridge bus."""

    def __init__(self, client: Any, bus: str) -> None:
        self._client = client
        self._bus = bus

    def publish(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Send one event. An error means that nobody may have heard it; the sweep finds the fact."""
        entry = {
            "Source": RUN_SOURCE if kind in FOR_USERS else SOURCE,
            "DetailType": kind,
            "Detail": json.dumps(dict(detail), separators=(",", ":")),
            "EventBusName": self._bus,
        }
        doing = f"publishing {kind!r}"
        try:
            answer = self._client.put_events(Entries=[entry])
        except FAILURES as error:
            raise failed_read(error, doing, f"bus {self._bus} is not there; run `spotrelay doctor`") from error
        if answer.get("FailedEntryCount"):
            code = bare(answer["Entries"][0].get("ErrorCode", "no code"))
            refused = Contention if code in THROTTLES else Unavailable
            raise refused(f"{doing}: bus {self._bus} did not take it ({code})")
