"""The sweep: what nobody told is found, and one broken part holds up no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import DUE_RUNS, ORPHANS_ADOPTED, ORPHANS_TERMINATED, SWEEP_FAILURES
from handlers.sweep import SweepFailed
from spotrelay.core.errors import Unavailable
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import Pool
from spotrelay.core.ports import Machine
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.testing import Fault, MemoryMachines, Script, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import ListQueue, World, counted

STRAY = "i-00000000000abcdef"
POOL = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")


@pytest.fixture
def world() -> World:
    return World()


def stray(world: World, run_id: str = "run-1", generation: int = 7, launch: int = 7) -> Machine:
    """A machine with our tags that no row names."""
    machine = Machine(STRAY, InstanceState.RUNNING, run_id, generation, launch, POOL, world.clock.now())
    world.machines.adopt(machine)
    return machine


def test_a_submitted_run_that_nobody_told_about_is_started(world: World) -> None:
    world.submit()

    world.sweep()

    assert world.run().status is RunStatus.STARTING
    assert world.ledger.counts[DUE_RUNS] == 1


def test_a_machine_that_vanished_without_an_event_is_replaced(world: World) -> None:
    machine = world.start()
    world.checkpoint()
    world.machines.set_state(machine, InstanceState.TERMINATED)

    world.settle(12)

    assert [m.generation for m in world.machines.alive] == [2]
    attempt = world.run().attempt(1)
    assert attempt is not None and attempt.state is AttemptState.ENDED


def test_due_runs_go_onto_their_queue(world: World) -> None:
    world.submit("run-1")
    world.submit("run-2")
    queue = ListQueue()

    world.sweep(plane=replace(world.plane, runs_queue=queue))

    assert sorted(queue.sent) == ["run-1", "run-2"]
    assert not world.machines.machines


def test_a_crowd_of_due_runs_is_spread_over_half_a_minute(world: World) -> None:
    for number in range(50):
        world.submit(f"run-{number}")
    queue = ListQueue()

    world.sweep(plane=replace(world.plane, runs_queue=queue))

    assert sorted(set(queue.after)) == [timedelta(seconds=0), timedelta(seconds=12), timedelta(seconds=24)]
    assert len(set(queue.sent)) == 50


def test_what_the_sweep_sends_is_understood_by_the_function_behind_the_queue(world: World) -> None:
    from handlers.batch import serve
    from handlers.kinds import FROM_US
    from tests.handlers.plane import batch, context

    world.submit()

    serve(batch({"run_id": "run-1"}), context(), world.plane, FROM_US)

    assert world.run().status is RunStatus.STARTING


def test_a_machine_of_an_open_launch_is_adopted(world: World) -> None:
    world.start()
    machine = world.run().current
    assert machine is not None and machine.instance_id is not None
    lost = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))
    world.warn(machine.instance_id, plane=replace(world.plane, machines=lost))
    assert world.run().attempt(2) is not None and world.run().intent is not None
    (orphan,) = [m for m in world.machines.alive if m.generation == 2]
    assert world.store.run_of(orphan.instance_id) is None

    world.sweep(timedelta(seconds=1))

    assert world.store.run_of(orphan.instance_id) == "run-1"
    assert world.ledger.counts[ORPHANS_ADOPTED] == 1
    assert [m.generation for m in world.machines.machines] == [1, 2]


@pytest.mark.parametrize("run_id", ["run-1", "no-such-run"])
def test_a_machine_that_no_run_knows_is_ended_after_a_grace(world: World, run_id: str) -> None:
    world.start()
    stray(world, run_id)

    world.sweep(timedelta(seconds=10))
    assert STRAY not in world.machines.terminations

    world.sweep(timedelta(minutes=3))
    assert world.machines.terminations == [STRAY]
    assert world.ledger.counts[ORPHANS_TERMINATED] == 1
    assert any("belongs to no live attempt" in message for _, message, _ in world.ledger.lines)


def test_a_machine_that_its_run_takes_for_gone_is_ended(world: World) -> None:
    machine = world.start()
    world.change(machine, InstanceState.TERMINATED)
    world.train()
    world.machines.set_state(machine, InstanceState.RUNNING)

    world.sweep(timedelta(minutes=3))

    assert machine in world.machines.terminations


def test_machines_at_work_are_left_alone(world: World) -> None:
    for number in range(5):
        world.start(f"run-{number}")

    for _ in range(5):
        world.clock.advance(timedelta(minutes=1))
        for number in range(5):
            world.beat(f"run-{number}", 1)
        world.sweep()

    assert not world.machines.terminations
    assert len(world.machines.alive) == 5


def test_in_a_crowd_every_machine_has_its_turn_within_ten_sweeps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spotrelay.testing.machines.CROWD", 0)
    machine = world.start()
    stray(world)
    world.change(machine, InstanceState.TERMINATED)
    world.machines.set_state(machine, InstanceState.RUNNING)

    for _ in range(13):
        world.sweep(timedelta(minutes=1))

    assert machine in world.machines.terminations
    assert STRAY in world.machines.terminations


def test_a_crowd_is_left_alone_while_it_is_another_regions_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spotrelay.testing.machines.CROWD", 1)
    world.start()
    stray(world)
    elsewhere = replace(stray(world), instance_id="i-0000000000000beef", pool=replace(POOL, region="us-east-1"))
    world.machines.adopt(elsewhere)
    world.clock.advance(timedelta(minutes=3))
    monkeypatch.setattr("handlers.sweep._its_turn", lambda plane: frozenset())

    world.sweep()

    assert world.machines.terminations == [elsewhere.instance_id]


def test_machines_whose_runs_answer_for_them_cost_one_look_for_a_hundred(world: World) -> None:
    for number in range(120):
        world.start(f"run-{number}")
    calls: list[str] = []

    world.sweep(timedelta(seconds=1), plane=counted(world, "store", world.store, calls))

    assert calls == ["due", "owners", "owners"]


def test_a_table_that_cannot_tell_whose_a_machine_is_ends_none(world: World) -> None:
    world.start()
    world.clock.advance(timedelta(seconds=1))
    store = faulty(world.store, Script({"owners": [Fault.UNAVAILABLE]}))

    with pytest.raises(SweepFailed, match="owners of machines"):
        world.sweep(plane=replace(world.plane, store=store))

    assert not world.machines.terminations


def test_one_run_that_cannot_be_answered_holds_up_no_other_and_the_sweep_says_so(world: World) -> None:
    world.submit("run-1")
    world.submit("run-2")
    store = faulty(world.store, at("load", 1, Fault.UNAVAILABLE))

    with pytest.raises(SweepFailed, match="run run-1"):
        world.sweep(plane=replace(world.plane, store=store))

    assert world.run("run-2").status is RunStatus.STARTING
    assert world.ledger.counts[SWEEP_FAILURES] == 1


def test_a_table_that_cannot_tell_what_is_due_does_not_hide_orphans(world: World) -> None:
    world.start()
    stray(world)
    world.clock.advance(timedelta(minutes=3))
    store = faulty(world.store, Script({"due": [Fault.UNAVAILABLE]}))

    with pytest.raises(SweepFailed, match="due runs"):
        world.sweep(plane=replace(world.plane, store=store))

    assert world.machines.terminations == [STRAY]


def test_a_region_that_does_not_answer_hides_only_its_own_machines(world: World) -> None:
    class HalfBlind(MemoryMachines):
        def managed(self, whole=None):  # type: ignore[no-untyped-def]  # as in the class above
            yield from super().managed(whole)
            raise Unavailable("eu-north-1 does not answer")

    world.machines = HalfBlind()
    world.start()
    stray(world)

    with pytest.raises(SweepFailed, match="eu-north-1"):
        world.sweep(timedelta(minutes=3))

    assert world.machines.terminations == [STRAY]


def test_a_termination_that_ec2_refuses_holds_up_no_other(world: World) -> None:
    world.start()
    stray(world)
    world.submit("run-2")
    world.clock.advance(timedelta(minutes=3))
    machines = faulty(world.machines, at("terminate", 1, Fault.UNAVAILABLE))

    with pytest.raises(SweepFailed, match=STRAY):
        world.sweep(plane=replace(world.plane, machines=machines))

    assert world.run("run-2").status is RunStatus.STARTING


def test_a_queue_that_refuses_makes_the_sweep_fail_visibly(world: World) -> None:
    class Full:
        def send(self, run_ids: object, after: timedelta = timedelta(0)) -> None:
            raise Unavailable("the queue does not answer")

    world.submit()

    with pytest.raises(SweepFailed, match="runs queue"):
        world.sweep(plane=replace(world.plane, runs_queue=Full()))
