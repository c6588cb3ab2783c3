"""A run on several machines in the world of histories: rank 0's trainer, the agents of the others, and survivors."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

from handlers.sweep import SweepFailed
from spotrelay.core.checkpoint import Commit
from spotrelay.core.errors import Fenced, SpotrelayError
from spotrelay.core.live import EXIT_PARTED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import Attempt
from spotrelay.core.spec import Limits
from spotrelay.testing import Fault
from tests.histories.trainer import Trainer
from tests.histories.world import RUN, SPEC, History

LEEWAY = timedelta(minutes=4)  # of a sweep each minute, for a decision that is due to be carried out


class Mate:
    """The agent on one of a gang's further machines: it beats, and says how its program ended."""

    def __init__(self, instance_id: str, generation: int, node: int, history: GangHistory) -> None:
        self.instance_id = instance_id
        self.generation = generation
        self.node = node
        self._store = history.world.store
        self._counter = 0

    def beat(self) -> None:
        self._counter += 1
        beat = Heartbeat(RUN, self.generation, self._counter, Phase.WAITING, node=self.node)
        with contextlib.suppress(SpotrelayError):
            self._store.beat(beat)

    def part(self) -> None:
        """Its ranks have lost the others."""
        self.end(EXIT_PARTED)

    def end(self, code: int) -> None:
        """Its program ends with this status."""
        with contextlib.suppress(SpotrelayError):
            self._store.report(ExitReport(RUN, self.generation, code, "program", node=self.node))

    def refused(self) -> bool:
        """Whether the table refuses a commit of this machine: only the first one of a gang holds the lease."""
        probe = Commit(RUN, self.generation, 900_000, 1, "no/such/manifest.json", "v", "0", 0)
        try:
            self._store.commit(probe, self.instance_id)
        except Fenced:
            return True
        return False


class GangHistory(History):
    """A run on several machines. The trainer is rank 0's; it trains while every machine of its attempt is there."""

    def __init__(self, nodes: int, reunion_s: float = 120.0) -> None:
        super().__init__()
        self.world = type(self.world)()
        self._machines = self.world.machines  # type: ignore[assignment]  # faults are drawn for the stores only
        self.mates: dict[str, Mate] = {}
        spec = replace(SPEC, nodes=nodes, limits=Limits(400, max_failures=1000), reunion_s=reunion_s)
        self.nodes = nodes
        self.serves: dict[str, int] = {}  # generation by machine
        self.ghosts: list[Trainer] = []  # what survivors ran in their attempt before
        self.world.submit(RUN, spec)

    def attempts(self) -> tuple[Attempt, ...]:
        return self.run.attempts

    def sweep(self, after: timedelta, faults: list[Fault]) -> None:
        self.let_mates_beat()
        super().sweep(after, faults)

    def let_mates_beat(self) -> None:
        alive = {m.instance_id for m in self.world.machines.alive}
        for instance_id, mate in self.mates.items():
            if instance_id in alive and instance_id not in self.paused:
                mate.beat()

    def cut_off_machine(self, instance_id: str, minutes: int) -> None:
        """One machine reaches nobody for so long, while everybody else goes on."""
        if timedelta(minutes=minutes) >= self.world.site.timings.silence:
            self.forsaken.add(instance_id)  # the rest of its gang is over once EC2 cannot be asked about it
        self.paused.add(instance_id)
        for _ in range(minutes):
            self.sweep(timedelta(minutes=1), [])
        if instance_id in {m.instance_id for m in self.world.machines.alive}:
            self.paused.discard(instance_id)
            self.let_mates_beat()

    def complete(self, trainer: Trainer) -> bool:
        """Whether every machine of its attempt is there, so that its steps can end."""
        attempt = self.run.attempt(trainer.generation)
        states = {m.instance_id: m.state for m in self.world.machines.machines}
        names = attempt.instance_ids if attempt is not None else ()
        return bool(names) and not any(states[i].is_over or i in self.paused for i in names)

    def is_whole(self, generation: int) -> bool:
        trainers = [t for t in self.trainers.values() if t.generation == generation]
        return bool(trainers) and self.complete(trainers[0])

    def quiet_minute(self) -> None:
        """A minute in which nothing goes wrong, and whatever can go on does."""
        with contextlib.suppress(SweepFailed):
            self.sweep(timedelta(minutes=1), [])
        for trainer in self.awake():
            trainer.beat()
            if self.complete(trainer):
                trainer.enter()
                trainer.train()
            if trainer.asked == "drain" or self.is_draining(trainer):
                self.drain(trainer)

    def is_draining(self, trainer: Trainer) -> bool:
        attempt = self.run.attempt(trainer.generation)
        return attempt is not None and bool(self.noticed & set(attempt.instance_ids))

    def waits_too_long(self, now: datetime, quiet_since: datetime) -> list[str]:
        """Machines that still wait for others beyond their bound: nobody asked for them, and nobody joins them."""
        run, late = self.run, []
        for attempt in run.attempts:
            since = attempt.noticed_at or attempt.ended_at
            if since is None or attempt.ended_at is None or (run.intent is not None and run.intent.keeps):
                continue
            reunion = since + timedelta(seconds=run.spec.reunion_s)
            bound = max(reunion, attempt.ended_at, quiet_since) + LEEWAY
            waiting = [m.instance_id for m in attempt.machines if m.live and not m.deadline and not m.ending_at]
            late += waiting if now > bound else []
        return late

    def _meet_machines(self) -> None:
        """Agents learn their rank from the run's row."""
        machines = {m.instance_id: m for m in self.world.machines.machines}
        for attempt in self.run.attempts:
            for node, instance_id in enumerate(attempt.instance_ids):
                machine = machines[instance_id]
                if self.serves.get(instance_id, 0) >= attempt.generation:
                    continue
                self._leave(instance_id)
                self.serves[instance_id] = attempt.generation
                if machine.state is InstanceState.PENDING:
                    self.world.machines.set_state(instance_id, InstanceState.RUNNING)
                if node == 0:
                    store, objects = self.world.store, self.world.objects
                    self.trainers[instance_id] = Trainer(RUN, attempt.generation, instance_id, store, objects)
                else:
                    self.mates[instance_id] = Mate(instance_id, attempt.generation, node, self)

    def _leave(self, instance_id: str) -> None:
        """A survivor goes over: what it ran before may still wake."""
        self.mates.pop(instance_id, None)
        ghost = self.trainers.pop(instance_id, None)
        if ghost is not None:
            self.ghosts.append(ghost)


class Named:
    """A machine, for what looks at its id only."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
