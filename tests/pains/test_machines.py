"""What users of other tools suffer from machines: doubled, orphaned, forgotten, noticed too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import ORPHANS_TERMINATED
from handlers.sweep import SweepFailed
from spotrelay.core.errors import Fenced
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import Pool
from spotrelay.core.ports import Machine
from spotrelay.core.run import RunStatus
from spotrelay.testing import Fault, Script, faulty
from spotrelay.testing.faults import at
from tests.handlers.checkpoints import put_checkpoint
from tests.handlers.plane import World, warning

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    return World()


def cancel(world: World) -> None:
    world.tell("Run Cancel Requested", run_id="run-1", reason="enough")


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.LOST_REPLY, Fault.UNAVAILABLE])
def test_cancelling_in_the_middle_of_a_recovery_leaks_no_machine(world: World, fault: Fault) -> None:
    """A job that is cancelled while its replacement is being launched leaves that replacement running, billed, and
    shown nowhere.

    Known from: skypilot-org/skypilot#4410 and #10061.
    """
    machine = world.start()
    world.checkpoint()
    world.warn(machine, plane=replace(world.plane, machines=faulty(world.machines, at("launch", 1, fault))))

    cancel(world)
    world.machines.set_state(machine, InstanceState.TERMINATED)
    world.settle(15)

    assert world.run().status is RunStatus.CANCELLED
    assert not world.machines.alive


def test_no_loss_is_answered_by_two_instances_and_none_is_left_for_ever(world: World) -> None:
    """Duplicate or forgotten instances turn up on the bill of the month.

    Known from: skypilot-org/skypilot#656, aws/karpenter-provider-aws#2734, LeanerCloud/AutoSpotting#484.
    """
    machine = world.start()
    world.checkpoint()
    event = warning(machine)
    orphan = Machine(
        "i-0000000000000dead",
        InstanceState.RUNNING,
        "run-1",
        9,
        9,
        Pool("eu-west-1", "eu-west-1a", "g5.xlarge"),
        world.clock.now(),
    )
    world.machines.adopt(orphan)

    world.deliver(event, event)
    world.deliver(event)
    world.machines.set_state(machine, InstanceState.TERMINATED)
    world.settle(5)

    assert [m.generation for m in world.machines.alive] == [2]
    assert world.ledger.counts[ORPHANS_TERMINATED] == 1


def test_a_machine_is_not_called_terminated_before_ec2_says_so(world: World) -> None:
    """A machine was shown as terminated in the tool and ran on in the account.

    Known from: dstackai/dstack#1551.
    """
    machine = world.start()
    stubborn = faulty(world.machines, Script({"terminate": [Fault.UNAVAILABLE] * 3}))
    plane = replace(world.plane, machines=stubborn)

    world.tell("Run Cancel Requested", plane=plane, run_id="run-1", reason="enough")
    world.sweep(MINUTE, plane=plane)

    assert [m.instance_id for m in world.machines.alive] == [machine]
    assert world.run().status is RunStatus.STOPPING
    world.settle(10)
    assert not world.machines.alive
    assert world.run().status is RunStatus.CANCELLED


def by_notice(world: World, machine: str) -> None:
    world.warn(machine)


def by_state_change(world: World, machine: str) -> None:
    world.change(machine, InstanceState.TERMINATED)


def by_silence(world: World, machine: str) -> None:
    world.machines.set_state(machine, InstanceState.TERMINATED)
    world.settle(8)


@pytest.mark.parametrize("how", [by_notice, by_state_change, by_silence])
def test_any_single_sign_of_a_loss_is_enough(world: World, how: object) -> None:
    """Where nobody listens to the notice, a loss is seen after two to twenty minutes, when some timeout ends.

    Known from: dstackai/dstack#2732, skypilot-org/skypilot#849.
    """
    machine = world.start()
    world.checkpoint()
    asked = world.clock.now()

    how(world, machine)  # type: ignore[operator]  # one of the three above

    assert [m.generation for m in world.machines.machines] == [1, 2]
    assert world.clock.now() - asked <= 8 * MINUTE


def test_a_fault_of_the_control_plane_kills_no_healthy_job(world: World) -> None:
    """When the controller's own database or network failed, jobs that trained happily were torn down.

    Known from: skypilot-org/skypilot#10061 and #10487.
    """
    machine = world.start()
    world.checkpoint()
    blind = replace(
        world.plane,
        store=faulty(world.store, lambda method: Fault.UNAVAILABLE),
        machines=faulty(world.machines, lambda method: Fault.UNAVAILABLE),
    )

    for _ in range(40):
        with pytest.raises(SweepFailed):
            world.sweep(MINUTE, plane=blind)
    world.beat("run-1", 1)
    world.sweep(MINUTE)

    assert [m.instance_id for m in world.machines.alive] == [machine]
    assert not world.machines.terminations
    assert world.run().status is RunStatus.RUNNING


def test_a_zombie_that_wakes_up_overwrites_nothing(world: World) -> None:
    """A machine that was paused, or cut off, comes back and writes over the checkpoints of its successor.

    Known from: skypilot-org/skypilot#9869; nothing in the comparison fences the checkpoint's writer.
    """
    machine = world.start()
    world.checkpoint(save=1)
    world.change(machine, InstanceState.TERMINATED)
    world.train()

    late, _ = put_checkpoint(world.objects, "run-1", 1, 2, 20)

    with pytest.raises(Fenced):
        world.store.commit(late, machine)


def test_one_bad_message_blocks_no_other_and_is_not_lost(world: World) -> None:
    """One event that could not be parsed was retried for ever, or everything behind it was deleted unprocessed.

    Known from: aws/aws-node-termination-handler#360 and #468.
    """
    machine = world.start()
    world.checkpoint()
    broken = {
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "detail": {"instance-id": 7},
    }

    answer = world.deliver(broken, "no json", warning(machine))

    assert answer == {"batchItemFailures": []}
    assert [m.generation for m in world.machines.machines] == [1, 2]
    assert any("7" in str(fields) for level, _, fields in world.ledger.lines if level == "error")
