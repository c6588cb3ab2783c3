"""What goes wrong in the middle, each once seen to lose something."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from spotrelay.core.errors import InvalidInput
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.core.spec import Limits
from spotrelay.core.spending import spent
from spotrelay.testing import Crash, Fault, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import SPEC, World

MINUTE = timedelta(minutes=1)


def test_an_adopted_machine_costs_what_its_pool_costs() -> None:
    world = World()
    world.submit(spec=replace(SPEC, limits=Limits(max_dollars=2.0)))
    plane = replace(world.plane, machines=faulty(world.machines, at("launch", 1, Fault.CRASH_AFTER)))
    try:
        world.tell("Run Submitted", plane=plane, run_id="run-1")
    except Crash:
        world.settle(sweeps=3)
    world.train()

    world.settle(sweeps=1, every=timedelta(hours=1))

    assert spent(world.run(), world.clock.now()) > 0.9


def test_damage_told_during_a_throttle_is_not_forgotten() -> None:
    world = World()
    world.start()
    world.checkpoint()
    world.look()
    plane = replace(world.plane, store=faulty(world.store, at("record_verdict", 1, Fault.THROTTLE)))

    answer = world.tell(
        "Checkpoint Damaged", plane=plane, run_id="run-1", generation=1, save=1, problem="a digest differs"
    )

    assert answer["batchItemFailures"] == []
    assert world.run().checkpoints[0].condemned


class Archived:
    """A bucket whose objects are there and cannot be read."""

    def __getattr__(self, name: str) -> object:
        def refuse(*args: object, **named: object) -> object:
            raise InvalidInput("InvalidObjectState: the object is archived")

        return refuse


def test_an_answer_of_s3_that_is_no_verdict_delays_the_replacement_for_a_bounded_time() -> None:
    world = World()
    machine = world.start()
    world.checkpoint()
    plane = replace(world.plane, objects=Archived())  # type: ignore[arg-type]  # every call fails the same way
    world.change(machine, InstanceState.TERMINATED, plane=plane)

    for _ in range(4):
        world.sweep(MINUTE, plane=plane)

    run = world.run()
    assert len(run.attempts) == 2 and run.status is RunStatus.STARTING
