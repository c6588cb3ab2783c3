"""Telling the control plane which checkpoint has proven good: beside the training, until it is heard."""

from __future__ import annotations

from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.errors import Contention, OutcomeUnknown, SpotrelayError, Unavailable
from spotrelay.core.ports import LiveStore
from trainer_shim.environment import Identity
from trainer_shim.voice import say


class Promoter:
    """Promotes the newest checkpoint that was asked for; sent with a heartbeat, and again with the next one."""

    def __init__(self, store: LiveStore, identity: Identity) -> None:
        self._store = store
        self._identity = identity
        self._wanted: CheckpointId | None = None

    def want(self, checkpoint: CheckpointId | None) -> None:
        """Promote this one as soon as possible, or none any more. An older one that still waits needs it no more."""
        self._wanted = checkpoint

    def send(self) -> None:
        """Promote what is wanted; harmless when repeated."""
        wanted = self._wanted
        if wanted is None:
            return
        try:
            self._store.promote(self._identity.run_id, wanted, self._identity.instance_id)
        except (Unavailable, Contention, OutcomeUnknown):
            return  # with the next heartbeat
        except SpotrelayError as error:
            say(f"checkpoint {wanted} was not promoted: {error}")
        if self._wanted == wanted:
            self._wanted = None
