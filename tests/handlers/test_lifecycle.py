"""Pause, resume, retry and cancel at any moment, through the real functions: never two machines, none forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import MACHINES_TOO_MANY, NO_PROGRESS
from spotrelay.core.facts import CancelRequested, Fact, PauseRequested, ResumeRequested, RetryRequested
from spotrelay.core.live import ASK_DRAIN, ASK_STACKS, EXIT_DONE, EXIT_DRAINED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope
from spotrelay.core.record import record
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.core.spec import Limits
from spotrelay.testing import Crash, Fault, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import SPEC, World

HOUR = timedelta(hours=1)


def wish(world: World, fact: Fact, run_id: str = "run-1") -> None:
    """What the console writes; nobody is told."""
    run, now = world.run(run_id), world.clock.now()
    after = record(run, fact, now, world.site)
    if after != run:
        world.store.save(run, replace(after, due_at=None if after.status.final else now))


def drained(world: World, machine: str, generation: int = 1) -> None:
    """The attempt hears the word in the answer to its heartbeat, saves, gives the lease back, and exits."""
    heard = world.store.beat(Heartbeat("run-1", generation, 50, Phase.TRAINING, step=10, first_step=True))
    assert heard == ASK_DRAIN
    world.checkpoint(step=10)
    world.release("run-1", machine, generation)
    world.exit("run-1", generation, EXIT_DRAINED)


def paused(world: World) -> None:
    """A run that trained, saved and rests."""
    machine = world.start()
    wish(world, PauseRequested("dear"))
    world.look()
    drained(world, machine)
    world.change(machine, InstanceState.TERMINATED)
    world.settle(3)
    assert world.run().status is RunStatus.PAUSED


def test_a_run_that_is_paused_saves_and_ends_its_machine_and_launches_none() -> None:
    world = World()
    machine = world.start()

    wish(world, PauseRequested("dear"))
    world.look()

    assert world.run().status is RunStatus.PAUSING
    assert world.machines.terminations == [], "it saves first"
    drained(world, machine)
    assert world.machines.terminations == [machine]
    world.change(machine, InstanceState.TERMINATED)
    world.settle(5)
    run = world.run()
    assert run.status is RunStatus.PAUSED and not run.status.final
    assert run.failures == 0 and run.checkpoints[0].verified
    assert len(world.machines.machines) == 1


def test_a_pause_says_of_each_checkpoint_once_that_it_is_whole() -> None:
    world = World()
    machine = world.start()
    world.checkpoint(step=5)
    world.tell("Checkpoint Committed", run_id="run-1")
    wish(world, PauseRequested("dear"))
    world.look()
    world.beat("run-1", 1)
    world.checkpoint(save=2, step=10)
    world.tell("Checkpoint Committed", run_id="run-1")
    world.release("run-1", machine, 1)
    world.exit("run-1", 1, EXIT_DRAINED)
    compared_at = world.run().checkpoints[0].verdict
    world.clock.advance(timedelta(minutes=1))

    world.change(machine, InstanceState.TERMINATED)
    world.settle(3)

    whole = [entry.data["checkpoint"] for entry in world.store.timeline("run-1") if entry.kind == "verified"]
    assert whole == ["1.1", "1.2"]
    assert world.run().checkpoints[0].verdict != compared_at, "it was compared again, in silence"


def test_a_verdict_of_a_function_that_died_before_it_told_is_told_at_the_next_comparison() -> None:
    world = World()
    machine = world.start()
    world.checkpoint(step=5)
    dying = replace(world.plane, store=faulty(world.store, at("save", 2, Fault.CRASH_BEFORE)))
    with pytest.raises(Crash):
        world.look(plane=dying)
    assert world.run().checkpoints[0].verified

    world.change(machine, InstanceState.TERMINATED)
    world.settle(3)

    assert [e.kind for e in world.store.timeline("run-1")].count("verified") == 1


def test_a_paused_run_is_looked_at_once_a_day_and_its_hours_stand_still() -> None:
    world = World()
    paused(world)

    world.settle(6, every=HOUR)
    world.sweep(timedelta(days=20))
    world.settle(3)

    run = world.run()
    assert run.status is RunStatus.PAUSED
    assert run.due_at is not None and run.due_at - world.clock.now() > 20 * HOUR
    wish(world, ResumeRequested())
    world.look()
    assert world.run().status is RunStatus.STARTING
    assert world.run().paused_for > timedelta(days=20)


def test_a_resumed_run_goes_on_in_one_new_attempt() -> None:
    world = World()
    paused(world)

    wish(world, ResumeRequested())
    world.look()
    world.look()

    assert [m.generation for m in world.machines.machines] == [1, 2]
    world.train()
    assert world.run().status is RunStatus.RUNNING


def test_a_resumed_run_may_go_to_the_pool_that_it_was_paused_in() -> None:
    world = World()
    paused(world)

    wish(world, ResumeRequested())
    world.look()

    first, second = (m.pool for m in world.machines.machines)
    assert first == second, "a pause is no loss"


def test_a_run_without_failover_may_be_paused_and_goes_on() -> None:
    world = World()
    machine = world.start(spec=replace(SPEC, failover=False))
    wish(world, PauseRequested("dear"))
    world.look()
    drained(world, machine)
    world.change(machine, InstanceState.TERMINATED)

    wish(world, ResumeRequested())
    world.look()
    second = world.train()
    world.change(second, InstanceState.TERMINATED)

    assert world.run().status is RunStatus.FAILED
    assert "failover is off" in world.run().outcome_why


def test_an_attempt_that_does_not_drain_in_time_is_ended() -> None:
    world = World()
    machine = world.start()
    wish(world, PauseRequested("dear"))
    world.look()

    for _ in range(17):
        world.beat("run-1", 1)
        world.sweep(timedelta(minutes=1))

    assert world.machines.terminations == [machine]


def test_a_machine_that_boots_is_ended_when_the_run_is_paused() -> None:
    world = World()
    world.submit()
    world.look()
    machine = world.machines.machines[0].instance_id

    wish(world, PauseRequested("dear"))
    world.look()

    assert world.machines.terminations == [machine]
    world.change(machine, InstanceState.TERMINATED)
    world.settle(3)
    assert world.run().status is RunStatus.PAUSED
    assert world.run().failures == 0


@pytest.mark.parametrize("fact", [PauseRequested("dear"), CancelRequested("enough")], ids=["pause", "cancel"])
@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.CRASH_AFTER, Fault.CRASH_BEFORE, Fault.UNAVAILABLE])
def test_a_run_that_is_stopped_in_the_middle_of_a_launch_keeps_no_machine(fault: Fault, fact: Fact) -> None:
    world = World()
    world.submit()
    plane = replace(world.plane, machines=faulty(world.machines, at("launch", 1, fault)))
    try:
        world.look(plane=plane)
    except Crash:
        assert fault in (Fault.CRASH_AFTER, Fault.CRASH_BEFORE)

    wish(world, fact)
    for _ in range(10):
        world.settle(1)
        for machine in world.machines.alive:
            if machine.instance_id in world.machines.terminations:
                world.machines.set_state(machine.instance_id, InstanceState.TERMINATED)

    assert world.run().status in (RunStatus.PAUSED, RunStatus.CANCELLED)
    assert world.machines.alive == []
    assert len(world.machines.machines) <= 1


def test_a_pause_while_the_word_cannot_be_written_is_made_up_for() -> None:
    world = World()
    machine = world.start()
    wish(world, PauseRequested("dear"))
    plane = replace(world.plane, store=faulty(world.store, at("ask", 1, Fault.UNAVAILABLE)))

    world.look(plane=plane)
    assert world.run().current is not None and world.run().current.state is AttemptState.RUNNING  # type: ignore[union-attr]
    world.settle(1)

    drained(world, machine)


def test_a_run_that_is_resumed_while_it_drains_hands_over() -> None:
    world = World()
    machine = world.start()
    wish(world, PauseRequested("dear"))
    world.look()

    wish(world, ResumeRequested())
    world.look()

    assert world.run().status is RunStatus.HANDOVER
    assert [m.generation for m in world.machines.machines] == [1, 2]
    drained(world, machine)
    assert world.machines.terminations == [machine], "EC2 will not take it"


def test_a_run_that_is_resumed_before_anybody_looked_trains_on_undisturbed() -> None:
    world = World()
    world.start()

    wish(world, PauseRequested("dear"))
    wish(world, ResumeRequested())
    world.look()

    assert world.run().status is RunStatus.RUNNING
    assert len(world.machines.machines) == 1
    assert world.store.beat(Heartbeat("run-1", 1, 50, Phase.TRAINING)) == ""


def test_a_paused_run_may_be_cancelled() -> None:
    world = World()
    paused(world)

    wish(world, CancelRequested("enough"))
    world.look()

    assert world.run().status is RunStatus.CANCELLED
    assert not world.run().paused


def test_a_program_that_finishes_while_it_is_to_drain_has_finished() -> None:
    world = World()
    machine = world.start()
    wish(world, PauseRequested("dear"))
    world.look()

    world.exit("run-1", 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)

    assert world.run().status is RunStatus.SUCCEEDED


def failed(world: World, **limits: float) -> None:
    """A run whose program has failed once too often."""
    most: dict[str, float] = {"max_failures": 1} | limits
    machine = world.start(spec=replace(SPEC, limits=Limits(**most)))  # type: ignore[arg-type]
    world.checkpoint()
    world.exit("run-1", 1, 1)
    world.change(machine, InstanceState.TERMINATED)
    assert world.run().status is RunStatus.FAILED


def test_a_retried_run_goes_on_from_its_newest_checkpoint_with_no_failure_counted() -> None:
    world = World()
    failed(world)

    wish(world, RetryRequested("mended"))
    world.look()

    run = world.run()
    assert (run.status, run.failures, run.outcome, run.ended_at) == (RunStatus.STARTING, 0, None, None)
    assert run.checkpoints[0].verified, "compared before anybody resumes from it"
    second = world.train()
    world.checkpoint(step=20)
    world.exit("run-1", 2, EXIT_DONE)
    world.change(second, InstanceState.TERMINATED)
    assert world.run().status is RunStatus.SUCCEEDED


def test_a_retried_run_counts_its_launches_and_hours_from_there() -> None:
    world = World()
    failed(world, max_launches=1, max_hours=1.0)
    world.clock.advance(5 * HOUR)

    wish(world, RetryRequested("mended"))
    world.look()
    machine = world.train()
    world.change(machine, InstanceState.TERMINATED)

    assert len(world.machines.machines) == 2
    assert "max_launches reached: 1" in world.run().outcome_why


def test_what_ec2_called_impossible_may_have_been_mended() -> None:
    world = World()
    world.submit()
    world.machines.refuse("InvalidAMIID.NotFound", FailureScope.CONFIGURATION)
    world.look()
    assert world.run().status is RunStatus.FAILED
    world.machines.allow()

    wish(world, RetryRequested("the image is back"))
    world.look()

    assert world.run().status is RunStatus.STARTING


def test_the_bucket_of_a_retried_run_is_tidied_again() -> None:
    world = World()
    failed(world)
    world.settle(40, every=timedelta(minutes=30))
    assert world.run().due_at is None

    wish(world, RetryRequested("mended"))
    world.look()

    assert world.run().upkeep.due_at is not None


@pytest.mark.parametrize("fact", [PauseRequested("x"), ResumeRequested(), RetryRequested("x")])
def test_a_run_that_has_succeeded_stays_so(fact: Fact) -> None:
    world = World()
    machine = world.start()
    world.exit("run-1", 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)

    wish(world, fact)

    assert world.run().status is RunStatus.SUCCEEDED


def test_a_zombie_of_a_run_that_was_retried_is_refused() -> None:
    world = World()
    failed(world)
    lease = world.store.read_lease("run-1")

    wish(world, RetryRequested("mended"))
    world.look()

    assert lease.floor == 2 and world.run().current is not None
    assert world.run().current.generation == 2  # type: ignore[union-attr]


def test_a_boot_that_fails_again_and_again_stops_the_run_with_the_end_of_its_log_and_the_remedy() -> None:
    world = World()
    world.submit()
    world.look()
    for generation in (1, 2, 3):
        machine = world.machines.machines[-1].instance_id
        world.exit("run-1", generation, 1, "boot")
        world.change(machine, InstanceState.TERMINATED)
        world.settle(2)

    run = world.run()
    assert run.status is RunStatus.FAILED
    assert len(world.machines.machines) == 3
    assert "the end of the log" in run.outcome_why and "spotrelay retry run-1" in run.outcome_why


def test_machines_that_die_in_their_setup_without_a_word_stop_the_run_too() -> None:
    world = World()
    world.submit()
    world.look()
    for generation in range(1, 9):
        if world.run().status.final:
            break
        world.beat("run-1", generation, Phase.SETUP)
        world.look()
        world.change(world.machines.machines[-1].instance_id, InstanceState.TERMINATED)
        world.settle(2)

    assert world.run().status is RunStatus.FAILED
    assert len(world.machines.machines) == 4, "the first one may have been bad luck"


def test_a_failed_machine_stays_as_long_as_the_spec_says_fenced_beside_its_successor() -> None:
    world = World()
    first = world.start(spec=replace(SPEC, keep_failed_minutes=30))
    world.exit("run-1", 1, 1)
    world.settle(2)
    world.train()

    for _ in range(26):
        world.beat("run-1", 2)
        world.sweep(timedelta(minutes=1))
    assert world.machines.terminations == []
    assert world.store.read_lease("run-1").floor == 2, "it may look, and commit nothing"
    for _ in range(5):
        world.beat("run-1", 2)
        world.sweep(timedelta(minutes=1))

    assert world.machines.terminations == [first]
    assert len(world.machines.machines) == 2


def test_a_failed_machine_that_stays_ends_with_the_run() -> None:
    world = World()
    first = world.start(spec=replace(SPEC, keep_failed_minutes=30))
    world.exit("run-1", 1, 1)

    wish(world, CancelRequested("enough"))
    world.look()

    assert first in world.machines.terminations


def hanging(world: World, minutes: int, generation: int = 1) -> None:
    """So many minutes in which heartbeats come and no step does."""
    for _ in range(minutes):
        beat = world.run().heartbeat(generation)
        assert beat is not None
        world.store.beat(replace(beat, counter=beat.counter + 1, signs=9, first_step=True))
        world.sweep(timedelta(minutes=1))


def test_a_hanging_program_is_asked_for_its_stacks_and_then_replaced() -> None:
    world = World()
    machine = world.start()

    hanging(world, 31)
    heard = world.store.beat(Heartbeat("run-1", 1, 500, Phase.TRAINING, step=10, signs=9, first_step=True))
    assert heard.startswith(ASK_STACKS)
    assert world.machines.terminations == []
    hanging(world, 5)

    assert world.machines.terminations == [machine]
    world.change(machine, InstanceState.TERMINATED)
    world.settle(2)
    assert [m.generation for m in world.machines.machines] == [1, 2]
    assert world.run().failures == 1, "a program that hangs at the same step again and again does not go on for ever"
    assert any("it hangs" in entry.text for entry in world.store.timeline("run-1"))


def test_life_without_progress_is_counted_for_its_alarm() -> None:
    world = World()
    world.start()

    hanging(world, 29)
    assert not world.ledger.counts[NO_PROGRESS]
    hanging(world, 3)

    assert world.ledger.counts[NO_PROGRESS]


def test_a_machine_that_ec2_does_not_end_is_counted_for_its_alarm() -> None:
    world = World()
    world.start()
    refusing = faulty(world.machines, lambda method: Fault.UNAVAILABLE if method == "terminate" else Fault.NONE)
    plane = replace(world.plane, machines=refusing)
    world.store.report(ExitReport("run-1", 1, 1, "program"))
    world.sweep(timedelta(minutes=1), plane=plane)
    world.sweep(timedelta(minutes=1), plane=plane)
    world.train()

    for minute in range(20):
        world.beat("run-1", 2)
        world.sweep(timedelta(minutes=1), plane=plane)
        if minute == 10:
            assert not world.ledger.counts[MACHINES_TOO_MANY]

    assert world.ledger.counts[MACHINES_TOO_MANY]


def test_a_bad_host_moves_the_run_to_another_pool_and_counts() -> None:
    world = World()
    world.submit()
    world.look()
    world.beat("run-1", 1, Phase.BOOT)

    world.exit("run-1", 1, 71, "host")
    world.settle(2)

    first, second = (m.pool for m in world.machines.machines)
    assert first != second
    run = world.run()
    assert run.failures == 1
    assert "its host is bad" in run.attempts[0].ended_why
    assert world.machines.terminations == ["i-00000000000000001"]


def test_an_image_whose_every_host_is_bad_stops_the_run() -> None:
    world = World()
    world.submit()
    world.look()
    for generation in (1, 2, 3):
        world.exit("run-1", generation, 71, "host")
        world.settle(2)

    assert world.run().status in (RunStatus.FAILED, RunStatus.STOPPING)
    assert len(world.machines.machines) == 3
    assert "its host is bad" in world.run().outcome_why
