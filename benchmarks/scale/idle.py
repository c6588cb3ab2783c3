"""Many runs at work: what a sweep costs when few are due, and what a run costs that only trains."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from benchmarks.scale.counting import Tally, counted
from handlers.batch import serve
from handlers.kinds import FROM_US
from handlers.sweep import TURNS, _its_turn, sweep
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.run import Run
from spotrelay.testing import MemoryExperience, MemoryLine
from tests.handlers.plane import ListQueue, World, batch, context

MINUTE = timedelta(minutes=1)
FAR = timedelta(hours=1)
HEALTHY_MINUTES = 10


class Crowd:
    """So many runs that train, each on its machine, with a verified checkpoint."""

    def __init__(self, runs: int) -> None:
        self.world = World()
        self.queue = ListQueue()
        self.tally = Tally(self.world.clock.now)
        plane = replace(self.world.plane, runs_queue=self.queue, experience=MemoryExperience(), line=MemoryLine())
        self.plane = counted(plane, self.tally)
        self.names = [f"run-{number:06d}" for number in range(runs)]
        self._first()
        for number, name in enumerate(self.names[1:], 2):
            self._copy(name, f"i-{number:017x}")

    def _first(self) -> None:
        name = self.names[0]
        self.world.start(name)
        self.world.checkpoint(name)
        self.world.tell("Checkpoint Committed", run_id=name)
        self.model = self.world.run(name)
        (self.machine,) = self.world.machines.machines

    def _copy(self, name: str, instance_id: str) -> None:
        store = self.world.store
        attempt = replace(self.model.attempts[0], instance_id=instance_id)
        store.create(Run(name, self.model.spec, self.model.created_at))
        store.save(store.load(name), replace(self.model, run_id=name, attempts=(attempt,)))
        store.take_lease(name, 1, instance_id)
        self.world.machines.adopt(replace(self.machine, instance_id=instance_id, run_id=name))

    def due(self, many: int) -> None:
        """Let so many runs be due now, and all others in an hour."""
        store, now = self.world.store, self.world.clock.now()
        for number, name in enumerate(self.names):
            run = store.load(name)
            store.save(run, replace(run, due_at=now if number < many else now + FAR))

    def sweep(self, in_turn: bool) -> dict[str, int]:
        """Requests of one sweep, in the minute of its region's turn or in another one."""
        while bool(_its_turn(self.plane)) is not in_turn:
            self.world.clock.advance(MINUTE)
        before = dict(self.tally.operations)
        sweep(self.plane)
        after = self.tally.operations
        services = ("dynamodb", "ec2", "sqs")
        return {s: sum(n - before.get(key, 0) for key, n in after.items() if key[0] == s) for s in services}

    def look(self) -> dict[str, float]:
        """Requests and units of one run that only trains, a minute; the mean over several."""
        tally = self.tally
        name = self.names[0]
        calls, reads, writes = tally.calls("dynamodb"), tally.read_units, tally.write_units
        for minute in range(HEALTHY_MINUTES):
            self.world.clock.advance(MINUTE)
            self.world.store.beat(Heartbeat(name, 1, minute + 2, Phase.TRAINING, step=10 + minute, total=100))
            serve(batch({"run_id": name}), context(), self.plane, FROM_US)
        return {
            "dynamodb_requests": (tally.calls("dynamodb") - calls) / HEALTHY_MINUTES,
            "read_units": (tally.read_units - reads) / HEALTHY_MINUTES,
            "write_units": (tally.write_units - writes) / HEALTHY_MINUTES,
        }


def measure(runs: int, dues: tuple[int, ...]) -> dict[str, Any]:
    """Requests of sweeps with so many due, and of one healthy minute."""
    crowd = Crowd(runs)
    sweeps: dict[str, dict[str, int]] = {}
    for many in dues:
        crowd.due(many)
        sweeps[str(many)] = crowd.sweep(in_turn=False)
    crowd.due(0)
    return {
        "runs": runs,
        "requests_of_a_sweep_by_runs_due": sweeps,
        "requests_of_the_sweep_in_ten_that_looks_at_every_machine": crowd.sweep(in_turn=True),
        "of_ten_sweeps": TURNS,
        "healthy_minute": crowd.look(),
    }
