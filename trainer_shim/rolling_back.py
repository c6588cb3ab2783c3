"""Back to the last good checkpoint within a running attempt: the state returns, the data goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Manifest, Rollback, newest_promoted
from spotrelay.core.errors import Damaged, InvalidInput, SpotrelayError
from trainer_shim.entry import MANY
from trainer_shim.environment import Identity
from trainer_shim.framework import Framework
from trainer_shim.herald import Herald
from trainer_shim.patience import Cancelled, persevere
from trainer_shim.restoring import Restored, fetch
from trainer_shim.voice import say
from trainer_shim.watcher import Watcher
from trainer_shim.wiring import Ports

BOUND_S = 600.0  # for one request; then training goes on as it is
SLICE_S = 0.1  # between looks at whether the machine is being taken back


class Retreat:
    """Finds the newest promoted checkpoint and puts it into what the script attached."""

    def __init__(
        self, ports: Ports, identity: Identity, framework: Framework, watcher: Watcher, herald: Herald
    ) -> None:
        self._ports = ports
        self._identity = identity
        self._framework = framework
        self._watcher = watcher
        self._herald = herald

    def go(self, step: int, why: str) -> tuple[Rollback, Manifest] | None:
        """The rollback that was made; None, after a line that says why, when the state stays as it is."""
        try:
            restored = self._newest()
            if restored is None:
                say(f"{why}. No checkpoint was promoted yet, so there is nothing to go back to; training goes on")
                return None
            self._apply(restored)
        except (SpotrelayError, Cancelled) as error:
            say(f"{why}. The rollback failed, training goes on as it is: {error or 'the machine is being taken back'}")
            return None
        manifest = restored.manifest
        say(f"{why}. Back to checkpoint {manifest.id} of step {manifest.step}; the data up to step {step} is skipped")
        return Rollback(step, manifest.step, str(manifest.id), why), manifest

    def wait(self, timeout: float) -> bool:
        """Let this much time pass; True, at once, when the machine is being taken back."""
        until = time.monotonic() + timeout
        while self._watcher.ending is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(SLICE_S, left))
        return self._watcher.ending is not None

    def _newest(self) -> Restored | None:
        damaged: set[CheckpointId] = set()
        while True:
            found = persevere(self._list, self, self._identity.time_scale, BOUND_S)
            checkpoint = newest_promoted(tuple(c for c in found if c.id not in damaged))
            if checkpoint is None:
                return None
            try:
                return fetch(checkpoint, self._ports, self._framework, None, self._call)
            except Damaged as error:
                say(f"checkpoint {checkpoint.id} is damaged, the promoted one before it is tried: {error}")
                damaged.add(checkpoint.id)
                about = {"generation": checkpoint.id.generation, "save": checkpoint.id.save, "problem": str(error)}
                where = {"key": error.key, "version": error.version} if error.key else {}
                self._herald.send("Checkpoint Damaged", {**about, **where})

    def _list(self) -> tuple[Checkpoint, ...]:
        return self._ports.store.checkpoints(self._identity.run_id, MANY)

    def _call(self, request: Callable[[], Any]) -> Any:
        return persevere(request, self, self._identity.time_scale, BOUND_S)

    def _apply(self, restored: Restored) -> None:
        misfits = self._framework.misfits(restored.state)
        if misfits:
            raise InvalidInput(f"checkpoint {restored.checkpoint.id} does not fit any more: {'; '.join(misfits[:10])}")
        # The generators go on: taken back, they would draw for the next data what they drew for the skipped.
        now = self._framework.capture()["random"]
        self._framework.apply({**restored.state, "random": now})
