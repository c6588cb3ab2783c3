"""Back to the last good checkpoint within a running attempt: the state returns, the data goes on.

Where several ranks train together, all of them go back to the same checkpoint, or none does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Manifest, Rollback, newest_promoted
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import Damaged, SpotrelayError
from trainer_shim.entry import MANY
from trainer_shim.environment import Identity
from trainer_shim.framework import Framework
from trainer_shim.herald import Herald
from trainer_shim.patience import Cancelled, persevere
from trainer_shim.restoring import Restored, fetch
from trainer_shim.team import Team
from trainer_shim.views import Wanted, everything
from trainer_shim.voice import say
from trainer_shim.watcher import Watcher
from trainer_shim.wiring import Ports

BOUND_S = 600.0  # for one request; then training goes on as it is
SLICE_S = 0.1  # between looks at whether the machine is being taken back
TAKEN = "the machine is being taken back"


class Stays(SpotrelayError):
    """No rank goes back; says why."""


class Retreat:
    """Finds the newest promoted checkpoint and puts it into what the script attached. Every rank has to call it."""

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        framework: Framework,
        watcher: Watcher,
        herald: Herald,
        team: Team,
        wanted: Wanted = everything,
    ) -> None:
        self._ports = ports
        self._identity = identity
        self._framework = framework
        self._watcher = watcher
        self._herald = herald
        self._team = team
        self._wanted = wanted

    def go(self, step: int, why: str) -> tuple[Rollback, Manifest] | None:
        """The rollback that was made; None, after a line that says why, when the state stays as it is."""
        try:
            restored = self._newest()
            if restored is None:
                say(f"{why}. No checkpoint was promoted yet, so there is nothing to go back to; training goes on")
                return None
            self._apply(restored)
        except Stays as error:
            say(f"{why}. The rollback failed, training goes on as it is: {error}")
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
            checkpoint = self._chosen(frozenset(damaged))
            if checkpoint is None:
                return None
            restored, failure, met = None, "", None
            try:
                restored = self._fetched(checkpoint)
            except Damaged as error:
                met = error
            except (SpotrelayError, Cancelled) as error:
                failure = str(error) or TAKEN
            damage = self._team.damage(met)
            self._stay_if(self._team.any(failure))
            if damage is None:
                return restored
            say(f"checkpoint {checkpoint.id} is damaged, the promoted one before it is tried: {damage}")
            damaged.add(checkpoint.id)
            self._herald.damaged(checkpoint.id, damage)

    def _chosen(self, damaged: frozenset[CheckpointId]) -> Checkpoint | None:
        """Rank 0's choice, on every rank."""
        said: dict[str, Any] = {}
        if self._team.leads:
            try:
                found = persevere(self._list, self, self._identity.time_scale, BOUND_S)
                said = {"chosen": to_json(newest_promoted(tuple(c for c in found if c.id not in damaged)))}
            except (SpotrelayError, Cancelled) as error:
                said = {"failure": str(error) or TAKEN}
        said = self._team.first(said)
        self._stay_if(said.get("failure", ""))
        return None if said["chosen"] is None else from_json(Checkpoint, said["chosen"])

    def _fetched(self, checkpoint: Checkpoint) -> Restored:
        rank = self._team.rank
        return fetch(checkpoint, self._ports, self._framework, None, self._call, None, rank, self._wanted)

    def _list(self) -> tuple[Checkpoint, ...]:
        return self._ports.store.checkpoints(self._identity.run_id, MANY)

    def _call(self, request: Callable[[], Any]) -> Any:
        return persevere(request, self, self._identity.time_scale, BOUND_S)

    def _apply(self, restored: Restored) -> None:
        misfits = self._team.all(self._framework.misfits(restored.state))
        if misfits:
            raise Stays(f"checkpoint {restored.checkpoint.id} does not fit any more: {'; '.join(misfits[:10])}")
        # The generators go on: taken back, they would draw for the next data what they drew for the skipped.
        now = self._framework.capture()["random"]
        self._framework.apply({**restored.state, "random": now})

    def _stay_if(self, failure: str) -> None:
        if failure:
            raise Stays(failure)
