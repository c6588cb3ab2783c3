"""A control plane on in-memory ports, and the events that drive it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.batch import serve
from handlers.control import ControlPlane
from handlers.kinds import FROM_EC2, FROM_US
from handlers.respond import respond
from handlers.sweep import SweepFailed, sweep
from spotrelay.core.clockwork import Timings
from spotrelay.core.live import ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.ports import ObjectStore
from spotrelay.core.run import Run
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec
from spotrelay.testing import (
    ManualClock,
    MemoryMachines,
    MemoryObjects,
    MemoryPublisher,
    MemoryStore,
    MemorySwitch,
)
from tests.handlers.checkpoints import put_checkpoint

ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"), ("eu-west-1", "eu-west-1c"))
SPEC = Spec(command=("python", "train.py"), instance_types=("g5.xlarge", "g5.2xlarge"))


class Ledger:
    """A telemetry that keeps everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.durations: list[tuple[str, float]] = []
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self.counts[name] += amount

    def milliseconds(self, name: str, value: float) -> None:
        with self._lock:
            self.durations.append((name, value))

    def info(self, message: str, **fields: Any) -> None:
        self._add("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._add("warning", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._add("error", message, fields)

    def _add(self, level: str, message: str, fields: dict[str, Any]) -> None:
        json.dumps(fields)
        with self._lock:
            self.lines.append((level, message, fields))


class ListQueue:
    """A runs queue that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.after: list[timedelta] = []

    def send(self, run_ids: Iterable[str], after: timedelta = timedelta(0)) -> None:
        names = list(run_ids)
        self.sent += names
        self.after += [after] * len(names)


@dataclass
class World:
    """AWS in memory, the control plane on top of it, and a hand to move both."""

    store: MemoryStore = field(default_factory=MemoryStore)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    machines: MemoryMachines = field(default_factory=MemoryMachines)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    switch: MemorySwitch = field(default_factory=MemorySwitch)
    clock: ManualClock = field(default_factory=ManualClock)
    ledger: Ledger = field(default_factory=Ledger)
    site: Site = field(default_factory=lambda: Site(ZONES, Timings()))
    replicas: dict[str, ObjectStore] = field(default_factory=dict)

    @property
    def plane(self) -> ControlPlane:
        return ControlPlane(
            self.store,
            self.objects,
            self.machines,
            self.publisher,
            self.switch,
            self.clock,
            self.site,
            self.ledger,
            pause=lambda seconds: None,
            replicas=self.replicas,
        )

    def submit(self, run_id: str = "run-1", spec: Spec = SPEC) -> None:
        """Write a run's row, as `spotrelay submit` does; nobody has looked at it yet."""
        self.store.create(Run(run_id, spec, self.clock.now()))

    def run(self, run_id: str = "run-1") -> Run:
        return self.store.load(run_id)

    def start(self, run_id: str = "run-1", spec: Spec = SPEC) -> str:
        """Submit a run and let its first attempt train; returns its machine."""
        self.submit(run_id, spec)
        self.tell("Run Submitted", run_id=run_id)
        return self.train(run_id)

    def train(self, run_id: str = "run-1") -> str:
        """Let the newest attempt boot, take the lease and finish a step; returns its machine."""
        attempt = self.run(run_id).current
        assert attempt is not None and attempt.instance_id is not None
        self.machines.set_state(attempt.instance_id, InstanceState.RUNNING)
        self.store.take_lease(run_id, attempt.generation, attempt.instance_id)
        self.beat(run_id, attempt.generation, first_step=True)
        self.tell("Attempt Reported", run_id=run_id, generation=attempt.generation, what="first-step")
        return attempt.instance_id

    def beat(self, run_id: str, generation: int, phase: Phase = Phase.TRAINING, first_step: bool = False) -> None:
        old = self.store.load(run_id).heartbeat(generation)
        counter = old.counter + 1 if old else 1
        self.store.beat(Heartbeat(run_id, generation, counter, phase, step=10, total=100, first_step=first_step))

    def checkpoint(self, run_id: str = "run-1", save: int = 1, step: int = 10, **more: Any) -> None:
        """Write and commit a checkpoint under the attempt that holds the lease, telling nobody."""
        lease = self.store.read_lease(run_id)
        assert lease.holder is not None
        commit, _ = put_checkpoint(self.objects, run_id, lease.generation, save, step, **more)
        self.store.commit(commit, lease.holder)

    def release(self, run_id: str, instance_id: str, generation: int) -> None:
        self.store.release_lease(run_id, generation, instance_id)

    def exit(self, run_id: str, generation: int, code: int, stage: str = "program") -> None:
        self.store.report(ExitReport(run_id, generation, code, stage, "the end of the log"))
        self.tell("Attempt Reported", run_id=run_id, generation=generation, what="exited")

    # events, as the functions get them

    def warn(self, instance_id: str, plane: ControlPlane | None = None) -> dict[str, Any]:
        return self.deliver(warning(instance_id), plane=plane)

    def change(self, instance_id: str, state: InstanceState, plane: ControlPlane | None = None) -> dict[str, Any]:
        """The machine goes into this state, and the event says so."""
        self.machines.set_state(instance_id, state)
        return self.deliver(changed(instance_id, state), plane=plane)

    def deliver(self, *events: Any, plane: ControlPlane | None = None) -> dict[str, Any]:
        """One batch for the function of EC2's events."""
        return serve(batch(*events), context(), plane or self.plane, FROM_EC2)

    def tell(self, kind: str, plane: ControlPlane | None = None, **detail: Any) -> dict[str, Any]:
        """One event of our own for the function of runs."""
        event = {"source": "spotrelay", "detail-type": kind, "detail": detail}
        return serve(batch(event), context(), plane or self.plane, FROM_US)

    def look(self, run_id: str = "run-1", plane: ControlPlane | None = None) -> None:
        respond(plane or self.plane, run_id)

    def sweep(self, after: timedelta = timedelta(0), plane: ControlPlane | None = None) -> None:
        self.clock.advance(after)
        sweep(plane or self.plane)

    def settle(self, sweeps: int = 40, every: timedelta = timedelta(minutes=1)) -> None:
        """Let the sweep finish what was left, as it does on its own."""
        for _ in range(sweeps):
            try:
                self.sweep(every)
            except SweepFailed as error:
                raise AssertionError(f"the sweep fails without a fault: {error}") from error


def warning(instance_id: str) -> dict[str, Any]:
    return {
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "detail": {"instance-id": instance_id, "instance-action": "terminate"},
    }


def changed(instance_id: str, state: InstanceState) -> dict[str, Any]:
    return {
        "source": "aws.ec2",
        "detail-type": "EC2 Instance State-change Notification",
        "detail": {"instance-id": instance_id, "state": state.value},
    }


def batch(*events: Any) -> dict[str, Any]:
    """SQS records, one for each event; a text or bytes go as they are."""
    return {
        "Records": [
            {
                "messageId": f"m-{number}",
                "receiptHandle": "r",
                "body": event if isinstance(event, str) else json.dumps(event),
                "attributes": {},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:interruptions",
                "awsRegion": "eu-west-1",
            }
            for number, event in enumerate(events)
        ]
    }


def context() -> LambdaContext:
    found: Any = SimpleNamespace(function_name="f", aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
    return found  # type: ignore[no-any-return]  # only these names are looked at


def counted(world: World, name: str, port: Any, calls: list[str]) -> ControlPlane:
    """The plane with every call of one port written into `calls`."""

    def draw(method: str) -> Any:
        from spotrelay.testing import Fault

        calls.append(method)
        return Fault.NONE

    from spotrelay.testing import faulty

    return replace(world.plane, **{name: faulty(port, draw)})


Step = Callable[[ControlPlane], Any]
