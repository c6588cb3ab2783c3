"""Our own events: hints that make the control plane look sooner. Never waited for by the training."""

from __future__ import annotations

import threading
from typing import Any

from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.errors import Damaged, SpotrelayError
from spotrelay.core.ports import Publisher
from trainer_shim.environment import Identity
from trainer_shim.voice import say


class Herald:
    """Reports how far this attempt has come."""

    def __init__(self, publisher: Publisher, identity: Identity, speaks: bool = True) -> None:
        self._speaks = speaks  # one rank does it for all
        self._publisher = publisher
        self._about: dict[str, Any] = {"run_id": identity.run_id, "generation": identity.generation}
        self._sending: list[threading.Thread] = []

    def report(self, what: str) -> None:
        """Send `Attempt Reported` in the background."""
        self.send("Attempt Reported", {"what": what})

    def damaged(self, checkpoint: CheckpointId, damage: Damaged) -> None:
        """Send `Checkpoint Damaged` in the background."""
        about = {"generation": checkpoint.generation, "save": checkpoint.save, "problem": str(damage)}
        where = {"key": damage.key, "version": damage.version} if damage.key else {}
        self.send("Checkpoint Damaged", {**about, **where})

    def send(self, kind: str, detail: dict[str, Any]) -> None:
        """Send an event about this attempt in the background."""
        if not self._speaks:
            return
        whole = {**self._about, **detail}
        thread = threading.Thread(
            target=publish, args=(self._publisher, kind, whole), name="spotrelay-event", daemon=True
        )
        thread.start()
        self._sending = [each for each in self._sending if each.is_alive()] + [thread]

    def flush(self, within_s: float) -> None:
        """Give what is still being sent this much time."""
        for thread in self._sending:
            thread.join(timeout=max(within_s, 0.0))


def publish(publisher: Publisher, kind: str, detail: dict[str, Any]) -> None:
    """Send an event; it is a hint, so a failure is only worth a line."""
    for left in reversed(range(3)):
        try:
            publisher.publish(kind, detail)
            return
        except SpotrelayError as error:
            if left == 0:
                say(f"the event {kind!r} could not be sent; the sweep will find out: {error}")
