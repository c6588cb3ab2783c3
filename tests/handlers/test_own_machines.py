"""Runs on hosts of one's own through the real handlers, on in-memory ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from handlers.control import ControlPlane
from handlers.settings import HOSTS_OUT_OF_REACH, SWEEP_FAILURES
from spotrelay.core.errors import OutcomeUnknown, OutOfReach, Unavailable
from spotrelay.core.hosts import Host
from spotrelay.core.live import ASK_DRAIN, EXIT_DRAINED, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.ports import LaunchAnswer, Machine
from spotrelay.core.providers import Providers
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.core.spec import OwnMachines
from spotrelay.testing import MemoryMachines
from spotrelay.testing.hosts import MemoryHosts
from tests.handlers.plane import SPEC, World

LAB = Host("lab1", "train", "lab1.example.org", "ssm:/spotrelay-hosts/lab1", "ssh-ed25519 " + "A" * 68, kind="rtx4090")
FIRST = replace(SPEC, own_machines=OwnMachines.FIRST)
MINUTE = timedelta(minutes=1)


class LabMachines(MemoryMachines):
    """Hosts in memory, whose silence is told from every other."""

    def _need(self, regions: set[str]) -> None:
        if regions:
            raise OutOfReach(f"{', '.join(sorted(regions))}: no answer")

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        if LAB.region in self._cut and not first:
            raise OutOfReach(f"{LAB.region}: no answer, nothing was sent")
        answer = super().launch(request, now, first=first)
        if self.hangs and answer.instance_id is not None:
            raise OutcomeUnknown(f"{LAB.region}: the answer broke off")
        return answer

    hangs = False  # starts machines, and does not say so


class Keeper:
    """Counts how often rights were looked after."""

    def __init__(self) -> None:
        self.tended = 0

    def tend(self) -> int:
        self.tended += 1
        return 0


class Lab(World):
    """The world with a host in it."""

    def __init__(self) -> None:
        super().__init__()
        self.lab = LabMachines()
        self.hosts = MemoryHosts(LAB)
        self.keeper = Keeper()

    @property
    def plane(self) -> ControlPlane:
        machines = Providers(self.machines, self.lab)
        return replace(super().plane, machines=machines, hosts=self.hosts, keeper=self.keeper)

    def on_the_lab(self) -> str:
        """A run that trains on the lab's host; its machine."""
        self.submit(spec=FIRST)
        self.tell("Run Submitted", run_id="run-1")
        attempt = self.run().current
        assert attempt is not None and attempt.instance_id is not None
        self.lab.set_state(attempt.instance_id, InstanceState.RUNNING)
        self.store.take_lease("run-1", 1, attempt.instance_id)
        self.beat("run-1", 1, first_step=True)
        self.tell("Attempt Reported", run_id="run-1", generation=1, what="first-step")
        self.checkpoint()
        self.look()
        return attempt.instance_id


@pytest.fixture
def world() -> Iterator[Lab]:
    yield Lab()


def test_a_run_that_asks_for_own_machines_first_starts_on_the_lab_and_costs_nothing_in_ec2(world: Lab) -> None:
    machine = world.on_the_lab()

    assert machine.startswith("h-") and world.run().status is RunStatus.RUNNING
    assert world.machines.machines == []


def test_a_run_that_does_not_ask_for_them_never_reads_the_hosts(world: Lab) -> None:
    world.hosts = None  # type: ignore[assignment]

    world.start()

    assert world.lab.machines == [] and len(world.machines.alive) == 1


def test_hosts_that_cannot_be_read_send_the_run_to_ec2(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[Host, ...]:
        raise Unavailable("the table does not answer")

    monkeypatch.setattr(world.hosts, "hosts", fail)
    world.submit(spec=FIRST)

    world.tell("Run Submitted", run_id="run-1")

    assert len(world.machines.alive) == 1
    assert any("hosts cannot be read" in message for _, message, _ in world.ledger.lines)


def test_a_host_that_vanishes_is_fenced_after_fifteen_minutes_of_silence_and_the_run_goes_on_in_ec2(world: Lab) -> None:
    machine = world.on_the_lab()
    world.lab.cut_off(LAB.region)

    world.settle(13)
    waiting = world.run()
    world.settle(8)

    assert waiting.status is RunStatus.RUNNING and world.lab.alive, "unknown is not gone"
    assert [m.generation for m in world.machines.alive] == [2]
    assert world.store.read_lease("run-1").floor == 2
    old = world.run().attempt(1)
    assert old is not None and old.over and old.live
    assert world.lab.terminations == [] or world.lab.terminations == [machine] * len(world.lab.terminations)


def test_a_host_that_comes_back_has_its_fenced_machine_ended_and_the_run_stays_where_it_is(world: Lab) -> None:
    machine = world.on_the_lab()
    world.lab.cut_off(LAB.region)
    world.settle(20)

    world.lab.cut_off(LAB.region, cut=False)
    for _ in range(6):
        world.beat("run-1", 2)
        world.settle(1)

    assert machine in world.lab.terminations
    old = world.run().attempt(1)
    assert old is not None and not old.live
    assert [m.generation for m in world.machines.alive] == [2]


def test_a_run_that_ends_elsewhere_does_not_wait_for_ever_for_a_host_that_never_comes_back(world: Lab) -> None:
    world.on_the_lab()
    world.lab.cut_off(LAB.region)
    world.settle(20)

    world.tell("Run Cancel Requested", run_id="run-1")
    world.look()
    world.settle(90)

    assert world.run().status is RunStatus.CANCELLED


def test_a_control_plane_that_cannot_ask_is_no_host_out_of_reach(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    world.on_the_lab()

    def fail(*_: object) -> dict[str, InstanceState]:
        raise Unavailable("the function that reaches hosts cannot be called")

    monkeypatch.setattr(world.lab, "states", fail)
    world.settle(30)

    assert world.run().status is RunStatus.RUNNING
    assert world.machines.alive == []


def test_a_host_that_vanishes_in_the_middle_of_a_launch_holds_the_run_up_for_a_quarter_of_an_hour_at_most(
    world: Lab,
) -> None:
    world.lab.hangs = True
    world.submit(spec=FIRST)
    world.tell("Run Submitted", run_id="run-1")
    world.lab.cut_off(LAB.region)

    world.settle(12)
    waiting, elsewhere = world.run(), world.machines.alive
    world.settle(6)

    assert waiting.intent is not None and elsewhere == []
    (made,) = world.machines.alive
    assert made.generation == 2

    world.lab.hangs = False
    world.lab.cut_off(LAB.region, cut=False)
    world.beat("run-1", 2)
    world.settle(4)

    assert len(world.lab.terminations) >= 1, "the machine that it made all the same is ended"
    assert world.lab.alive == []


def test_a_run_that_is_cancelled_while_a_host_vanishes_in_its_launch_ends(world: Lab) -> None:
    world.lab.hangs = True
    world.submit(spec=FIRST)
    world.tell("Run Submitted", run_id="run-1")
    world.lab.cut_off(LAB.region)

    world.tell("Run Cancel Requested", run_id="run-1")
    world.look()
    world.settle(20)

    assert world.run().status is RunStatus.CANCELLED


def test_a_host_that_is_switched_off_is_no_failure_of_the_sweep(world: Lab) -> None:
    world.lab.cut_off(LAB.region)

    world.settle(2)

    assert world.ledger.counts[HOSTS_OUT_OF_REACH] == 2
    assert world.ledger.counts[SWEEP_FAILURES] == 0
    assert world.keeper.tended == 2


def drained(world: Lab) -> None:
    attempt = world.run().attempt(1)
    assert attempt is not None and attempt.instance_id is not None
    beat = Heartbeat("run-1", 1, 9, Phase.DRAINED, step=10, first_step=True)
    world.store.beat(beat)
    world.release("run-1", attempt.instance_id, 1)
    world.exit("run-1", 1, EXIT_DRAINED)
    world.lab.set_state(attempt.instance_id, InstanceState.TERMINATED)


def test_draining_a_host_asks_its_attempt_to_go_and_launches_the_next_one_in_ec2_at_once(world: Lab) -> None:
    machine = world.on_the_lab()
    world.hosts.drain("lab1")

    told = {"run_id": "run-1", "instance-id": machine, "action": "terminate", "source": "drain"}
    world.tell("Interruption Notice Seen", **told)
    asked = world.store.beat(Heartbeat("run-1", 1, 8, Phase.TRAINING, step=10, first_step=True))

    assert asked == ASK_DRAIN
    assert world.run().status is RunStatus.HANDOVER
    assert [m.generation for m in world.machines.alive] == [2]
    assert world.lab.terminations == []

    drained(world)
    world.train()
    world.settle(2)

    assert world.run().status is RunStatus.RUNNING
    assert [a.state for a in world.run().attempts] == [AttemptState.ENDED, AttemptState.RUNNING]
    assert world.run().failures == 0


def test_a_drain_whose_event_was_lost_is_told_by_the_sweep(world: Lab) -> None:
    machine = world.on_the_lab()
    world.hosts.drain("lab1")

    world.sweep(MINUTE)

    attempt = world.run().attempt(1)
    assert attempt is not None and attempt.instance_id == machine
    assert (attempt.state, attempt.noticed_by) == (AttemptState.DRAINING, "drain")
    assert attempt.deadline == world.clock.now() + world.site.timings.drain


def test_a_machine_on_a_host_that_no_run_knows_is_ended(world: Lab) -> None:
    stray = Machine("h-0abcdef0123456789", InstanceState.RUNNING, "gone", 3, 3, LAB.pool, world.clock.now())
    world.lab.adopt(stray)

    world.settle(4)

    assert stray.instance_id in world.lab.terminations
