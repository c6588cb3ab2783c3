"""Before the first step: the lease, and then (only then) the choice of what to resume from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from spotrelay.core.checkpoint import (
    Checkpoint,
    CheckpointId,
    awaiting_verification,
    manifest_key,
    resume_candidate,
)
from spotrelay.core.comparing import replica_of
from spotrelay.core.errors import LeaseHeld, Missing
from spotrelay.core.lease import Lease
from spotrelay.core.live import Phase
from spotrelay.core.replica import Replica
from spotrelay.core.run import Run
from spotrelay.core.spec import NoCheckpoint
from trainer_shim.environment import Identity
from trainer_shim.patience import Cancelled, persevere
from trainer_shim.pulse import Pulse
from trainer_shim.watcher import Watcher
from trainer_shim.wiring import Ports

T = TypeVar("T")

SLICE_S = 0.1  # between looks at whether the attempt must end
MANY = 1000  # checkpoints looked through when none of the newest can be used
LOOKS = 10  # at the store while one verification is expected, at least


@dataclass(frozen=True)
class Choice:
    """What to resume from, and what the control plane knows of it in the machine's own region."""

    checkpoint: Checkpoint
    replica: Replica | None = None  # None: the region has none


class NothingToResume(Exception):
    """Progress was made and no checkpoint can be used now. The control plane has to decide."""


class Ended(Exception):
    """The machine is being taken back before training began."""


class Gate:
    """What the way in needs of the world: requests that are tried again, and waits that can end early."""

    def __init__(self, ports: Ports, identity: Identity, pulse: Pulse, watcher: Watcher) -> None:
        self.ports = ports
        self.identity = identity
        self.pulse = pulse
        self.trouble = ""  # what does not work at present
        self._watcher = watcher
        self._never = threading.Event()

    def pause(self, seconds: float) -> None:
        """Let this much time pass.

        Raises:
            Ended: the machine is being taken back.
        """
        if self.wait(seconds):
            raise Ended("" if self._watcher.ending is None else self._watcher.ending.why)

    def wait(self, timeout: float) -> bool:
        """Let this much time pass; True, at once, when the machine is being taken back."""
        until = time.monotonic() + timeout
        while self._watcher.ending is None and (left := until - time.monotonic()) > 0:
            self._never.wait(min(SLICE_S, left))
        return self._watcher.ending is not None

    def call(self, request: Callable[[], T]) -> T:
        """The answer to a request that is harmless to repeat; gives up when a machine should be up by now.

        Raises:
            Ended: the machine is being taken back, and there is no answer yet.
        """
        bound_s = self.identity.timings.boot.total_seconds()
        try:
            answer = persevere(request, self, self.identity.time_scale, bound_s, self._failing)
        except Cancelled as error:
            raise Ended("" if self._watcher.ending is None else self._watcher.ending.why) from error
        self.trouble = ""
        return answer

    def _failing(self, error: Exception) -> None:
        self.trouble = str(error)


def take_lease(gate: Gate) -> Lease:
    """The lease, as soon as the attempt before this one has given it back or is known to be dead.

    Raises:
        Fenced: this attempt has been replaced.
    """
    identity = gate.identity
    while True:
        try:
            return gate.call(
                lambda: gate.ports.store.take_lease(identity.run_id, identity.generation, identity.instance_id)
            )
        except LeaseHeld:
            gate.pulse.set(phase=Phase.WAITING)
            gate.pause(identity.timings.poll.total_seconds() / 5)


def newest_number(gate: Gate, lease: Lease) -> int:
    """The highest number of a save that this attempt has used, committed or not.

    Ranks that were started again within their attempt may have lost their predecessors between the manifest and
    the commit, and no number is used twice.
    """
    number = lease.save
    while True:
        key = manifest_key(lease.run_id, lease.generation, number + 1)
        try:
            gate.call(partial(gate.ports.objects.head, key))
        except Missing:
            return number
        number += 1


def choose(gate: Gate, damaged: frozenset[CheckpointId]) -> Choice | None:
    """What to resume from: the newest verified usable checkpoint; None to begin at step 0.

    Waits a bounded time while a newer one is about to be verified, or verdicts are being renewed.

    Args:
        damaged: checkpoints that were found damaged by this attempt.

    Raises:
        NothingToResume: there is progress, and nothing to take it up from.
    """
    bound_s = gate.identity.timings.verification.total_seconds()
    deadline = time.monotonic() + bound_s
    while True:
        run = gate.call(lambda: gate.ports.store.read_run(gate.identity.run_id))
        found = _sound(gate, run, damaged)
        candidate = resume_candidate(found)
        stale = candidate is not None and candidate.is_stale(run.recheck_after)
        settled = not awaiting_verification(found) and not stale
        if settled or time.monotonic() >= deadline:
            if candidate is None:
                _see_that_it_may_begin(run, found, damaged, gate.identity)
                return None
            return Choice(candidate, replica_of(run, candidate, gate.identity.here))
        gate.pulse.set(phase=Phase.WAITING)
        gate.pause(min(bound_s / LOOKS, 1.0))


def _sound(gate: Gate, run: Run, damaged: frozenset[CheckpointId]) -> tuple[Checkpoint, ...]:
    found = run.checkpoints
    if found and resume_candidate(found) is None:
        found = gate.call(lambda: gate.ports.store.checkpoints(run.run_id, MANY))
    return tuple(c for c in found if c.id not in damaged)


def _see_that_it_may_begin(
    run: Run, found: tuple[Checkpoint, ...], damaged: frozenset[CheckpointId], identity: Identity
) -> None:
    pending = [str(c.id) for c in found if c.usable]
    if pending or damaged:
        names = ", ".join(pending + [f"{each} (damaged)" for each in sorted(damaged)])
        raise NothingToResume(
            f"run {run.run_id}: no checkpoint is verified; there are {names}. This attempt ends, so that the "
            "control plane can look at them again; nothing of the run was changed"
        )
    progressed = bool(found) or any(a.first_step_at for a in run.attempts if a.generation < identity.generation)
    if progressed and run.spec.on_no_checkpoint is NoCheckpoint.STOP:
        raise NothingToResume(
            f"run {run.run_id}: every checkpoint is lost, and its spec says on_no_checkpoint: stop. "
            "Submit it again with restart to begin at step 0"
        )
