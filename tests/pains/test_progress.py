"""What users of other tools suffer from checkpoints, money, and from not being told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import CHECKPOINTS_OVERDUE
from spotrelay.core.checkpoint import resume_candidate
from spotrelay.core.ledger import ledger_of
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.core.spec import Limits
from tests.handlers.plane import SPEC, World, warning

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    return World()


def test_a_half_written_checkpoint_does_not_stop_a_resume(world: World) -> None:
    """The newest folder is the one that was being written when the machine died; the resume fails on it, every time.

    Known from: huggingface/transformers#35525.
    """
    machine = world.start()
    world.checkpoint(save=1, step=10)
    world.tell("Checkpoint Committed", run_id="run-1")
    world.checkpoint(save=2, step=20)
    torn = next(o for o in world.objects.list_versions("runs/run-1/shards/000001/000002/"))
    world.objects.delete(torn.key, torn.version_id)

    world.change(machine, InstanceState.TERMINATED)

    candidate = resume_candidate(world.run().checkpoints)
    assert candidate is not None and candidate.commit.step == 10
    assert [m.generation for m in world.machines.alive] == [2]


def test_what_was_uploaded_and_never_committed_is_not_resumed_from(world: World) -> None:
    """A folder without an end mark looks like any other: the highest number wins, complete or not.

    Known from: the public examples of a failover product, and `get_last_checkpoint` of huggingface/transformers.
    """
    from tests.handlers.checkpoints import put_checkpoint

    machine = world.start()
    world.checkpoint(save=1, step=10)
    put_checkpoint(world.objects, "run-1", 1, 2, 20)

    world.change(machine, InstanceState.TERMINATED)

    candidate = resume_candidate(world.run().checkpoints)
    assert candidate is not None and candidate.commit.step == 10


def test_checkpoints_that_silently_stopped_raise_an_alarm(world: World) -> None:
    """The job ran for days after its checkpoints had stopped to arrive; somebody found out at the first loss.

    Known from: aws/sagemaker-python-sdk#3062.
    """
    world.start()
    world.checkpoint()
    world.tell("Checkpoint Committed", run_id="run-1")

    for _ in range(60 * 5):
        world.beat("run-1", 1)
        world.sweep(MINUTE)

    assert world.ledger.counts[CHECKPOINTS_OVERDUE] > 0
    assert len(world.machines.machines) == 1  # told, not killed


def test_retries_never_spend_past_the_ceiling(world: World) -> None:
    """A pipeline retried on ever larger machines through the night, and nobody had said how much it may cost.

    Known from: nextflow-io/nextflow#5215, skypilot-org/skypilot#8766.
    """
    world.submit(spec=replace(SPEC, limits=Limits(max_dollars=2.0, max_failures=1000)))  # a machine costs 1 an hour
    world.sweep()

    for _ in range(40):
        for machine in world.machines.alive:
            world.train()
            world.clock.advance(10 * MINUTE)
            world.change(machine.instance_id, InstanceState.TERMINATED)
        world.sweep(MINUTE)

    run = world.run()
    assert run.status is RunStatus.FAILED and "max_dollars" in run.outcome_why
    assert len(world.machines.machines) <= 13


def test_a_process_that_lives_without_making_a_step_is_replaced(world: World) -> None:
    """A process that answered its health check for a night had not made a step since the evening.

    Known from: skypilot-org/skypilot#7117.
    """
    machine = world.start()
    world.checkpoint()
    sign = Heartbeat("run-1", 1, 10, Phase.TRAINING, step=10, total=100, first_step=True, signs=5, longest_s=1.0)

    for minute in range(45):
        world.store.beat(replace(sign, counter=sign.counter + minute))
        world.sweep(MINUTE)
    world.settle(3)

    assert machine in world.machines.terminations
    assert [m.generation for m in world.machines.alive] == [2]
    assert any("it hangs" in entry.text for entry in world.store.timeline("run-1"))


def test_every_change_is_told_to_machines_in_a_stable_form(world: World) -> None:
    """There was no alert when a job failed, and no output that a program could read.

    Known from: skypilot-org/skypilot#2000 and #3775.
    """
    machine = world.start()
    world.checkpoint()
    world.warn(machine)

    told = world.publisher.of("Run Status Changed")

    assert [(t["from"], t["to"]) for t in told][:3] == [
        ("waiting", "launching"),
        ("launching", "starting"),
        ("starting", "running"),
    ]
    assert all({"run_id", "from", "to", "reason", "generation", "schema"} == set(t) for t in told)
    assert {t["schema"] for t in told} == {1}


def test_a_recovery_can_be_explained_from_beginning_to_end(world: World) -> None:
    """Why a job was restarted, where it went and what it lost is spread over several logs, or in none.

    Known from: an empty place; nothing in the comparison has one timeline with the reasons.
    """
    machine = world.start()
    world.checkpoint()
    world.tell("Checkpoint Committed", run_id="run-1")
    world.warn(machine)
    world.release("run-1", machine, 1)
    world.clock.advance(MINUTE)
    world.train()
    world.change(machine, InstanceState.TERMINATED)

    kinds = [entry.kind for entry in world.store.timeline("run-1")]
    wanted = ["reserved", "launched", "lease", "committed", "verified", "notice", "reserved", "launched", "lease"]
    places = iter(kinds)
    assert all(kind in places for kind in wanted), kinds
    reasons = [entry.text for entry in world.store.timeline("run-1") if entry.kind == "reserved"]
    assert "its machine is being taken back; next: " in reasons[1]
    (recovery,) = ledger_of(world.run(), world.clock.now()).recoveries
    assert recovery.rto is not None and recovery.cause.startswith("notice")


def test_a_machine_is_not_started_for_a_checkpoint_that_nobody_looked_at(world: World) -> None:
    """A new machine is paid for, boots for minutes, and then finds that there is nothing whole to go on from.

    Known from: an empty place; nothing in the comparison compares a checkpoint with its store before it spends.
    """
    machine = world.start()
    world.checkpoint()

    world.change(machine, InstanceState.TERMINATED)

    (checkpoint,) = world.run().checkpoints
    kinds = [entry.kind for entry in world.store.timeline("run-1")]
    assert checkpoint.verified
    assert kinds.index("verified") < len(kinds) - 1 - kinds[::-1].index("reserved")


def test_the_event_of_the_machine_itself_is_as_good_as_the_accounts(world: World) -> None:
    """The user has to choose between watching the queue and watching on the machine, and each misses something.

    Known from: aws/aws-node-termination-handler, two modes that exclude each other.
    """
    machine = world.start()
    world.checkpoint()

    world.tell("Interruption Notice Seen", run_id="run-1", instance_id=machine, generation=1, action="terminate")
    after_the_machines_own = [m.generation for m in world.machines.machines]
    world.deliver(warning(machine))

    assert after_the_machines_own == [m.generation for m in world.machines.machines] == [1, 2]


def test_a_job_that_fails_again_and_again_stops_with_the_end_of_its_log(world: World) -> None:
    """A typo in the script was retried until somebody looked, and the error had to be searched for on dead machines.

    Known from: aws/aws-parallelcluster-node#702, whose answer, a protected mode, is the one to learn from.
    """
    world.submit()
    world.sweep()

    for generation in range(1, 6):
        if world.run().status.final or world.run().current.generation < generation:  # type: ignore[union-attr]  # has one
            break
        world.train()
        world.exit("run-1", generation, 1)
        for machine in world.machines.alive:
            world.change(machine.instance_id, InstanceState.TERMINATED)
        world.settle(3)

    run = world.run()
    assert run.status is RunStatus.FAILED
    assert len(world.machines.machines) == run.spec.limits.max_failures
    assert "the end of the log" in run.outcome_why
