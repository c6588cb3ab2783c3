"""An attempt of a run for scripts that call torch.distributed.checkpoint themselves, on one process or many.

Rank 0 holds the lease, beats and commits; every rank listens for SIGTERM, and all of them learn of an ending
together, so that none is left behind in a collective.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from spotrelay.core.checkpoint import CheckpointId, Commit
from spotrelay.core.errors import Fenced, SpotrelayError
from spotrelay.core.live import EXIT_DRAINED, EXIT_FENCED, Phase
from trainer_shim import needs, wiring
from trainer_shim.departing import EXIT_REFUSED
from trainer_shim.entry import Choice, Ended, Gate, NothingToResume, choose, newest_number, take_lease
from trainer_shim.environment import Identity, read_identity
from trainer_shim.frameworks import torch_ranks
from trainer_shim.frameworks.torch_dcp_ranks import Accord
from trainer_shim.herald import Herald
from trainer_shim.marker import Marker, exit_status
from trainer_shim.pulse import Pulse
from trainer_shim.ranks import expect
from trainer_shim.voice import say
from trainer_shim.watcher import Watcher

T = TypeVar("T")


def join() -> Attempt | None:
    """Take part in the attempt that this script was started for; None outside Spotrelay.

    Every rank calls it, after `init_process_group`. It waits for the lease.

    Raises:
        SystemExit: this attempt was replaced (76), or its machine is being taken back (75).
        Parted: another rank has left.
    """
    identity = read_identity(os.environ)
    if identity is None:
        return None
    needs.demand()
    needs.compare(identity.stack_version)
    attempt = Attempt(identity, wiring.connect(identity), Accord(expect(torch_ranks.ranks(), identity.nodes)))
    attempt.enter()
    return attempt


class Attempt:
    """What `SpotrelayWriter` and `SpotrelayReader` share."""

    def __init__(self, identity: Identity, ports: wiring.Ports, ranks: Accord) -> None:
        self.ports = ports
        self.ranks = ranks
        self.identity = identity if ranks.watches else replace(identity, metadata=None, state=None)
        self.code = ""  # digest of the pinned code, for the manifests
        self.herald = Herald(ports.publisher, self.identity)
        self._marker = Marker(self.identity.state)
        self._pulse = Pulse(ports.store, self.identity)
        self._watcher = Watcher(self.identity, ports.publisher)
        self._gate = Gate(ports, self.identity, self._pulse, self._watcher)
        self._save = 0  # number of the newest save begun; known on rank 0

    def enter(self) -> None:
        """See `join`."""
        self._watcher.start()
        try:
            self._together(self._enter)
        except BaseException:
            self.close()
            raise

    def call(self, request: Callable[[], T]) -> T:
        """The answer to a request that is harmless to repeat, tried again for a bounded time."""
        return self._gate.call(request)

    def next_save(self) -> int:
        """A number that no save of this attempt has, also none of an earlier process of it. On rank 0."""
        self._save += 1
        return self._save

    def commit(self, commit: Commit) -> None:
        """Make a checkpoint exist. On rank 0. Raises as `LiveStore.commit`."""
        self.call(lambda: self.ports.store.commit(commit, self.identity.instance_id))
        self._pulse.set(at_once=True, step=commit.step, first_step=True)
        self.herald.send("Checkpoint Committed", {"save": commit.save})

    def newest(self, damaged: frozenset[CheckpointId]) -> Choice | None:
        """What to resume from, on rank 0; None to begin at step 0.

        Raises:
            SystemExit: there is progress and nothing to take it up from; or the machine is going.
        """
        return choose(self._gate, damaged)

    def restored(self, commit: Commit, via: str = "") -> None:
        """Say what was resumed from, and where it was read."""
        if self.ranks.rank == 0:
            self._pulse.set(
                at_once=True, step=commit.step, resumed_from=commit.step, resumed_checkpoint=str(commit.id),
                resumed_via=via,
            )  # fmt: skip
            self.herald.report("restored")
            say(f"run {commit.run_id}: {self.ranks.size} ranks go on at step {commit.step}, from {commit.id}")

    def ending(self) -> bool:
        """Whether any rank was told that its machine goes. All ranks call it, between two steps."""
        return any(self.ranks.gather(self._watcher.ending is not None))

    def drain(self) -> NoReturn:
        """Give the lease back, so that the next attempt can go on, and leave. All ranks call it.

        Raises:
            SystemExit: always, with 75, or under torchrun as the machine's agent was told.
        """
        self.release()
        raise self._ended(EXIT_DRAINED)

    def release(self) -> None:
        """Give the lease back. Harmless when it is not held any more."""
        if self.ranks.rank == 0:
            identity = self.identity
            self._pulse.set(at_once=True, phase=Phase.DRAINED)
            self.call(
                lambda: self.ports.store.release_lease(identity.run_id, identity.generation, identity.instance_id)
            )
            self.herald.report("released")
        self.ranks.gather(None)

    def close(self) -> None:
        """End the threads of this process."""
        self._watcher.stop()
        self._pulse.stop()
        self.herald.flush(2.0)

    def on_all(self, work: Callable[[], Any]) -> Any:
        """What `work` gives on rank 0, told to all; when it ends the attempt, all of them leave."""
        return self._together(work)

    def _enter(self) -> None:
        identity, store = self.identity, self.ports.store
        self._marker.put()
        run = self.call(lambda: store.read_run(identity.run_id))
        beat = run.heartbeat(identity.generation)
        self._pulse.start(beat.counter if beat is not None else 0)
        lease = take_lease(self._gate)
        self._save = newest_number(self._gate, lease)
        self.code = run.spec.code_digest or run.spec.image
        self._pulse.set(at_once=True, phase=Phase.TRAINING)

    def _together(self, work: Callable[[], Any]) -> Any:
        def first() -> Any:
            try:
                return {"answer": work()}
            except Fenced as error:
                return {"leave": EXIT_FENCED, "why": f"{error}. This process ends here; the run goes on elsewhere"}
            except Ended as error:
                return {"leave": EXIT_DRAINED, "why": f"{error}: this attempt ends before its first step"}
            except NothingToResume as error:
                return {"leave": EXIT_REFUSED, "why": str(error)}

        told = self.ranks.from_first(first)
        if "leave" not in told:
            return told["answer"]
        if self.ranks.rank == 0:
            say(told["why"])
        if told["leave"] == EXIT_DRAINED:
            self._give_up()
        raise self._ended(told["leave"])

    def _ended(self, code: int) -> SystemExit:
        """What to leave with, once every rank has come to the same end."""
        written = not self.ranks.watches or self._marker.leave_word(self.identity.generation, code)
        told = all(self.ranks.gather(written))
        self.close()
        return SystemExit(exit_status(code, told, self.ranks.size))

    def _give_up(self) -> None:
        if self.ranks.rank == 0:
            identity = self.identity
            try:
                self.ports.store.release_lease(identity.run_id, identity.generation, identity.instance_id)
            except SpotrelayError as error:
                say(f"the lease could not be given back; the control plane will take it: {error}")
