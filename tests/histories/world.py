"""AWS in memory with trainers on its machines, and a watch on everything that was promised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from handlers.control import ControlPlane
from handlers.sweep import SweepFailed
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, Verdict, decode_manifest
from spotrelay.core.errors import Fenced, Missing, SpotrelayError
from spotrelay.core.facts import CancelRequested, Fact
from spotrelay.core.live import ExitReport
from spotrelay.core.notice import InstanceState
from spotrelay.core.record import record
from spotrelay.core.run import Run
from spotrelay.core.spec import Limits, Spec
from spotrelay.testing import Crash, Fault, faulty
from tests.handlers.plane import World, changed, warning
from tests.histories.trainer import Trainer

RUN = "run-1"
SPEC = Spec(("python", "train.py"), ("g5.xlarge", "g5.2xlarge"))


class History:
    """One run, its trainers dead and alive, and the hand of fate."""

    def __init__(self, max_launches: int = 100) -> None:
        self.max_launches = max_launches
        self.harmed: dict[CheckpointId, Verdict | None] = {}  # and the verdict that stood at that moment
        self.world = World()
        self.trainers: dict[str, Trainer] = {}
        self.paused: set[str] = set()  # machines that EC2 calls gone while their process may wake again
        self.accepted: list[Commit] = []  # every commit, in the order in which the table took it
        self.noticed: set[str] = set()
        self.lost: set[str] = set()
        self.forsaken: set[str] = set()  # machines that nobody heard of for longer than the hopeless bound
        self.cancelled = False
        self.retries = 0
        self._script: Iterator[Fault] = iter(())
        self._machines = faulty(self.world.machines, self._draw)  # one for all: it knows what it has answered before
        self.world.submit(RUN, replace(SPEC, limits=Limits(max_launches, max_failures=1000)))

    @property
    def run(self) -> Run:
        return self.world.run(RUN)

    # what the control plane is made to do

    def plane(self, faults: list[Fault]) -> ControlPlane:
        """The control plane with these faults, one for each call of any port, in order.

        Only EC2 answers stale: the table and S3 are read consistently.
        """
        self._script = iter(faults)

        def draw(method: str) -> Fault:
            fault = self._draw(method)
            return Fault.NONE if fault is Fault.STALE else fault

        plane = self.world.plane
        return replace(
            plane,
            store=faulty(plane.store, draw),
            objects=faulty(plane.objects, draw),
            machines=self._machines,
            publisher=faulty(plane.publisher, draw),
        )

    def _draw(self, method: str) -> Fault:
        return next(self._script, Fault.NONE)

    def deliver(self, event: dict[str, Any], faults: list[Fault]) -> None:
        """One event through the real function; a crash of it is SQS's to repeat or the sweep's to mend."""
        with contextlib.suppress(Crash):
            self.world.deliver(event, plane=self.plane(faults))
        self._meet_machines()

    def sweep(self, after: timedelta, faults: list[Fault]) -> None:
        """Time passes, living trainers beat, and the sweep comes round."""
        self.world.clock.advance(after)
        for trainer in self.awake():
            trainer.beat()
        with contextlib.suppress(Crash, SweepFailed):
            self.world.sweep(plane=self.plane(faults))
        self._meet_machines()

    def skew(self, by: timedelta) -> None:
        """The next handler runs where the clock is fast or slow by so much."""
        self.world.clock.advance(by)

    def outage(self, minutes: int) -> None:
        """Nobody reaches the table for so long; then the sweep is there before the first heartbeat."""
        for _ in range(minutes):
            self.world.clock.advance(timedelta(minutes=1))
            with contextlib.suppress(SweepFailed):
                self.world.sweep(plane=self.plane([Fault.UNAVAILABLE] * 20))
        with contextlib.suppress(SweepFailed):
            self.world.sweep()
        self.sweep(timedelta(seconds=30), [])

    def cut_off(self, trainer: Trainer, minutes: int) -> None:
        """One machine trains on and reaches nobody for so long, while everybody else goes on."""
        if timedelta(minutes=minutes) >= self.world.site.timings.hopeless:
            self.forsaken.add(trainer.instance_id)
        self.paused.add(trainer.instance_id)
        for _ in range(minutes):
            self.sweep(timedelta(minutes=1), [])
            trainer.train()
        if trainer.instance_id in {m.instance_id for m in self.world.machines.alive}:
            self.paused.discard(trainer.instance_id)
            trainer.beat()

    # what happens to machines

    def awake(self) -> list[Trainer]:
        """Trainers whose process runs."""
        alive = {m.instance_id for m in self.world.machines.alive}
        return [t for i, t in self.trainers.items() if i in alive and i not in self.paused]

    def zombies(self) -> list[Trainer]:
        """Trainers that EC2 calls gone, and that run all the same."""
        return [self.trainers[i] for i in self.paused]

    def notice(self, trainer: Trainer) -> dict[str, Any]:
        """EC2 will take the machine back."""
        self.noticed.add(trainer.instance_id)
        return warning(trainer.instance_id)

    def lose(self, trainer: Trainer, zombie: bool) -> dict[str, Any]:
        """The machine is gone for EC2; as a zombie its process may run on."""
        self.lost.add(trainer.instance_id)
        self.world.machines.set_state(trainer.instance_id, InstanceState.TERMINATED)
        if zombie:
            self.paused.add(trainer.instance_id)
        return changed(trainer.instance_id, InstanceState.TERMINATED)

    def told_again(self, instance_id: str) -> dict[str, Any]:
        """The event about a machine that was noticed or lost, as EC2 tells it once more."""
        if instance_id in self.noticed:
            return warning(instance_id)
        states = {m.instance_id: m.state for m in self.world.machines.machines}
        return changed(instance_id, states[instance_id])

    def harm_newest(self) -> None:
        """An outside hand deletes a shard of the newest checkpoint that is whole."""
        for commit in reversed(self.accepted):
            if self.whole(commit):
                manifest = decode_manifest(self.world.objects.get(commit.manifest_key))
                self.world.objects.remove(manifest.shards[0].key)
                self.harmed[commit.id] = self.checkpoint(str(commit.id)).verdict
                return

    def crash_program(self, trainer: Trainer) -> None:
        """The user's program fails."""
        with contextlib.suppress(SpotrelayError):
            self.world.store.report(ExitReport(RUN, trainer.generation, 1, "program", "Traceback"))

    def cancel(self) -> None:
        """A person cancels."""
        self.wish(CancelRequested("enough"))
        self.cancelled = True

    def wish(self, fact: Fact) -> None:
        """What the console writes for a person; nobody is told."""
        run, now = self.run, self.world.clock.now()
        after = record(run, fact, now, self.world.site)
        if after != run:
            self.world.store.save(run, replace(after, due_at=None if after.status.final else now))

    def commit(self, trainer: Trainer) -> None:
        """Let the trainer send its commit, and keep what the table took."""
        sent = trainer.uploaded
        trainer.commit()
        if sent is not None and trainer.commits and trainer.commits[-1] == sent:
            self.accepted.append(sent)

    def drain(self, trainer: Trainer) -> None:
        """Let the trainer drain, and keep what the table took."""
        known = len(trainer.commits)
        trainer.drain()
        self.accepted += trainer.commits[known:]

    # what is true

    def whole(self, commit: Commit) -> bool:
        """Whether every byte of it is in S3, looked at without the code under test."""
        try:
            manifest = decode_manifest(self.world.objects.get(commit.manifest_key, commit.manifest_version))
            for shard in manifest.shards:
                if self.world.objects.head(shard.key, shard.version_id).size != shard.size:
                    return False
        except Missing:
            return False
        return True

    def checkpoint(self, name: str) -> Checkpoint:
        return next(c for c in self.run.checkpoints if str(c.id) == name)

    def refused(self, trainer: Trainer) -> bool:
        """Whether the table refuses a commit of this trainer now."""
        probe = Commit(RUN, trainer.generation, 900_000, 1, "no/such/manifest.json", "v", "0", 0)
        try:
            self.world.store.commit(probe, trainer.instance_id)
        except Fenced:
            return True
        return False

    def _meet_machines(self) -> None:
        """A program starts on each machine that EC2 has given since."""
        for machine in self.world.machines.machines:
            if machine.instance_id not in self.trainers:
                self.world.machines.set_state(machine.instance_id, InstanceState.RUNNING)
                self.trainers[machine.instance_id] = Trainer(
                    machine.run_id, machine.generation, machine.instance_id, self.world.store, self.world.objects
                )
