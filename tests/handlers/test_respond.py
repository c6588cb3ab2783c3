"""Events in, launches out: the real handlers on in-memory ports."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from handlers.control import ControlPlane
from handlers.settings import (
    EVENT_TO_LAUNCH,
    LAUNCHES_STOPPED,
    NOT_OURS,
    POSTPONED,
    QUARANTINED,
    UNCONCERNED,
    UNKNOWN_KIND,
)
from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import OutcomeUnknown
from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.run import AttemptState, Run, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Limits
from spotrelay.testing import Crash, Fault, ManualClock, MemoryMachines, MemoryStore, Script, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import SPEC, ListQueue, World, batch, changed, context, counted, warning

SOME = "i-0123456789abcdef0"
CAPPED = replace(SPEC, limits=Limits(max_dollars=5.0))


@pytest.fixture
def world() -> World:
    return World()


def launched(world: World) -> list[tuple[int, int]]:
    """(generation, launch) of every machine that was ever made."""
    return [(m.generation, m.launch) for m in world.machines.machines]


# one run, from its submission to its end


def test_a_submitted_run_gets_a_machine(world: World) -> None:
    world.submit()

    world.tell("Run Submitted", run_id="run-1")

    run = world.run()
    assert run.current is not None and run.current.instance_id == world.machines.machines[0].instance_id
    assert run.status is RunStatus.STARTING
    assert run.due_at is not None


def test_a_submitted_run_gets_one_machine_however_often_it_is_told(world: World) -> None:
    world.submit()

    for _ in range(3):
        world.tell("Run Submitted", run_id="run-1")

    assert launched(world) == [(1, 1)]


def test_a_run_that_finishes_leaves_no_machine(world: World) -> None:
    machine = world.start()
    world.checkpoint()
    world.exit("run-1", 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)

    world.settle(3)

    assert world.run().status is RunStatus.SUCCEEDED
    world.settle(5, every=world.site.timings.grace)
    assert world.run().due_at is None
    assert not world.machines.alive


def test_a_cancelled_run_ends_its_machine(world: World) -> None:
    world.start()

    world.tell("Run Cancel Requested", run_id="run-1", reason="wrong data")
    world.settle(10)

    assert world.run().status is RunStatus.CANCELLED
    assert not world.machines.alive
    assert len(world.machines.machines) == 1


# notices


def test_a_notice_launches_the_replacement_while_the_old_machine_lives(world: World) -> None:
    machine = world.start()
    world.checkpoint()

    world.warn(machine)

    assert launched(world) == [(1, 1), (2, 2)]
    assert machine in [m.instance_id for m in world.machines.alive]
    assert world.store.read_lease("run-1").holder == machine
    assert world.run().status is RunStatus.HANDOVER


def test_a_notice_twice_and_behind_the_state_change_launches_once(world: World) -> None:
    machine = world.start()
    world.checkpoint()

    world.change(machine, InstanceState.TERMINATED)
    world.warn(machine)
    world.warn(machine)
    world.change(machine, InstanceState.TERMINATED)

    assert launched(world) == [(1, 1), (2, 2)]


def test_a_batch_with_the_same_notice_twice_launches_once(world: World) -> None:
    machine = world.start()
    world.checkpoint()

    answer = world.deliver(warning(machine), warning(machine))

    assert answer == {"batchItemFailures": []}
    assert launched(world) == [(1, 1), (2, 2)]


def test_a_notice_for_an_ended_attempt_is_ignored(world: World) -> None:
    machine = world.start()
    world.checkpoint()
    world.warn(machine)
    world.change(machine, InstanceState.TERMINATED)
    world.train()

    world.warn(machine)

    assert launched(world) == [(1, 1), (2, 2)]
    assert world.run().status is RunStatus.RUNNING


def test_a_notice_for_a_run_that_is_over_changes_nothing(world: World) -> None:
    machine = world.start()
    world.exit("run-1", 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)
    world.settle(3)
    before = world.run()

    world.warn(machine)

    assert world.run() == before
    assert len(world.machines.machines) == 1


def test_a_notice_is_answered_although_the_bucket_is_out_of_order(world: World) -> None:
    machine = world.start()
    world.checkpoint()
    broken = replace(world.plane, objects=faulty(world.objects, lambda method: Fault.UNAVAILABLE))

    world.warn(machine, plane=broken)

    assert launched(world) == [(1, 1), (2, 2)]
    (checkpoint,) = world.run().checkpoints
    assert checkpoint.verdict is None


def test_a_rebalance_recommendation_launches_and_ends_nothing(world: World) -> None:
    machine = world.start()

    world.deliver(
        {
            "source": "aws.ec2",
            "detail-type": "EC2 Instance Rebalance Recommendation",
            "detail": {"instance-id": machine},
        }
    )

    assert launched(world) == [(1, 1)]
    assert not world.machines.terminations


def test_the_shims_own_sight_of_a_notice_counts_as_one(world: World) -> None:
    machine = world.start()

    seen = {"run_id": "run-1", "generation": 1, "instance_id": machine, "action": "terminate", "deadline": "soon"}
    world.tell("Interruption Notice Seen", None, **seen)

    assert launched(world) == [(1, 1), (2, 2)]


def test_a_lost_machine_is_replaced_without_any_notice(world: World) -> None:
    machine = world.start()
    world.checkpoint()

    world.change(machine, InstanceState.SHUTTING_DOWN)

    assert launched(world) == [(1, 1), (2, 2)]


def test_the_time_from_an_event_to_its_launch_is_measured(world: World) -> None:
    world.warn(world.start())

    assert EVENT_TO_LAUNCH in dict(world.ledger.durations)


# whose instance


def test_a_machine_that_is_not_ours_costs_one_read_and_nothing_else(world: World) -> None:
    world.start()
    calls: list[str] = []
    planes: dict[str, Any] = {}
    for name in ("store", "objects", "machines", "publisher", "switch"):
        planes[name] = getattr(counted(world, name, getattr(world, name), calls), name)

    answer = world.deliver(changed(SOME, InstanceState.RUNNING), plane=replace(world.plane, **planes))

    assert answer == {"batchItemFailures": []}
    assert calls == ["run_of"]
    assert world.ledger.counts[NOT_OURS] == 1


def test_an_event_for_a_run_that_does_not_exist_is_dropped(world: World) -> None:
    answer = world.tell("Run Submitted", run_id="never-was")

    assert answer == {"batchItemFailures": []}
    assert world.ledger.counts[NOT_OURS] == 1


def test_the_end_of_a_capacity_block_is_counted(world: World) -> None:
    world.deliver(
        {
            "source": "aws.ec2",
            "detail_type": "Capacity Block Expiration Warning",
            "detail": {"capacity-reservation-id": "cr-0a1b2c3d4e5f60718"},
        }
    )

    assert world.ledger.counts[UNCONCERNED] == 1


# bad neighbours in a batch


def test_a_malformed_event_is_kept_and_its_neighbour_is_answered(world: World) -> None:
    machine = world.start()
    bad = '{"source": "aws.ec2", "detail'

    answer = world.deliver(bad, warning(machine), {"source": "aws.ec2", "detail-type": "EC2 Novelty", "detail": {}})

    assert answer == {"batchItemFailures": []}
    assert launched(world) == [(1, 1), (2, 2)]
    assert (world.ledger.counts[QUARANTINED], world.ledger.counts[UNKNOWN_KIND]) == (1, 1)
    (line,) = [fields for _, message, fields in world.ledger.lines if message == "event quarantined"]
    assert base64.b64decode(line["bytes_base64"]) == bad.encode()


def test_a_large_malformed_event_is_kept_whole_in_parts(world: World) -> None:
    bad = "[" + "x" * 250_000

    world.deliver(bad)

    lines = [fields for _, message, fields in world.ledger.lines if message == "event quarantined"]
    assert [line["part"] for line in lines] == ["1/3", "2/3", "3/3"]
    assert b"".join(base64.b64decode(line["bytes_base64"]) for line in lines) == bad.encode()
    assert world.ledger.counts[QUARANTINED] == 1


def test_only_the_record_that_failed_comes_back(world: World) -> None:
    machine = world.start()
    other = world.start("run-2")
    store = faulty(world.store, at("load", 1, Fault.UNAVAILABLE))

    answer = world.deliver(warning(machine), warning(other), plane=replace(world.plane, store=store))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-0"}]}
    assert world.run("run-2").status is RunStatus.HANDOVER


def test_a_batch_that_failed_as_a_whole_comes_back_as_a_whole(world: World) -> None:
    machine = world.start()
    store = faulty(world.store, lambda method: Fault.UNAVAILABLE)

    answer = world.deliver(warning(machine), warning(machine), plane=replace(world.plane, store=store))

    assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == ["m-0", "m-1"]


def test_an_event_without_a_queue_round_it_is_answered(world: World) -> None:
    from handlers.batch import serve
    from handlers.kinds import FROM_EC2

    machine = world.start()

    serve(warning(machine), context(), world.plane, FROM_EC2)

    assert launched(world) == [(1, 1), (2, 2)]


# capacity, money, the kill switch


def test_a_refused_pool_is_followed_by_the_next_one(world: World) -> None:
    machine = world.start()
    world.machines.refuse(instance_type="g5.xlarge")

    world.warn(machine)

    replacement = world.machines.alive[-1]
    assert replacement.pool.instance_type == "g5.2xlarge"
    assert replacement.generation == 2


def test_when_every_pool_refuses_the_run_waits_and_tries_again(world: World) -> None:
    machine = world.start()
    world.machines.refuse()
    world.warn(machine)
    assert len(world.machines.machines) == 1
    assert world.run().due_at is not None

    world.machines.allow()
    world.change(machine, InstanceState.TERMINATED)
    world.settle(15)

    assert len(world.machines.alive) == 1
    assert world.machines.alive[0].generation == 2


def test_a_configuration_error_fails_the_run_with_its_reason(world: World) -> None:
    world.machines.refuse("InvalidParameterValue", FailureScope.CONFIGURATION)
    world.submit()

    world.tell("Run Submitted", run_id="run-1")

    assert world.run().status is RunStatus.FAILED
    assert "InvalidParameterValue" in world.run().outcome_why


TWO_REGIONS = Site((("eu-west-1", "eu-west-1a"), ("us-east-1", "us-east-1a")), Timings())


def test_a_region_that_cannot_be_reached_sends_the_launch_to_another(world: World) -> None:
    world.site = TWO_REGIONS
    world.machines.cut_off("eu-west-1")
    world.submit()

    world.tell("Run Submitted", run_id="run-1")

    assert [machine.pool.region for machine in world.machines.alive] == ["us-east-1"]


def test_a_launch_that_may_have_been_sent_stays_with_its_region_when_that_is_out_of_reach(world: World) -> None:
    world.site = TWO_REGIONS
    world.submit()
    machines = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))
    world.tell("Run Submitted", run_id="run-1", plane=replace(world.plane, machines=machines))

    world.machines.cut_off("eu-west-1")
    for _ in range(5):
        world.clock.advance(timedelta(minutes=1))
        world.look()
    meanwhile = world.run().intent
    world.machines.cut_off("eu-west-1", cut=False)
    world.settle(15)

    assert meanwhile is not None and meanwhile.pools[0].region == "eu-west-1"
    assert [machine.launch for machine in world.machines.machines] == [1]


def test_the_kill_switch_stops_every_launch(world: World) -> None:
    machine = world.start()
    world.switch.on = False

    world.warn(machine)

    assert launched(world) == [(1, 1)]
    assert world.ledger.counts[LAUNCHES_STOPPED] >= 1
    assert world.run().due_at is not None


def test_a_run_goes_on_when_the_kill_switch_is_released(world: World) -> None:
    machine = world.start()
    world.switch.on = False
    world.warn(machine)

    world.switch.on = True
    world.settle(15)

    assert (2, 2) in launched(world)


def test_an_unreadable_kill_switch_launches_nothing(world: World) -> None:
    machine = world.start()
    blind = replace(world.plane, switch=faulty(world.switch, lambda method: Fault.UNAVAILABLE))

    world.warn(machine, plane=blind)
    assert launched(world) == [(1, 1)]

    world.settle(5)
    assert (2, 2) in launched(world)


def test_a_run_that_needs_no_launch_does_not_ask_for_the_switch(world: World) -> None:
    world.start()
    calls: list[str] = []

    world.look(plane=counted(world, "switch", world.switch, calls))

    assert calls == []


def test_the_price_of_a_machine_is_recorded(world: World) -> None:
    world.start()

    attempt = world.run().current

    assert attempt is not None and attempt.price == 1.0


def test_a_launch_does_not_depend_on_its_price(world: World) -> None:
    machine = world.start()
    machines = faulty(world.machines, Script({"prices": [Fault.UNAVAILABLE] * 9}))

    world.warn(machine, plane=replace(world.plane, machines=machines))

    attempt = world.run().current
    assert attempt is not None and attempt.instance_id is not None and attempt.price is None


def test_a_run_with_a_dollar_ceiling_asks_for_prices_before_it_launches(world: World) -> None:
    calls: list[str] = []
    world.submit(spec=CAPPED)

    world.tell("Run Submitted", counted(world, "machines", world.machines, calls), run_id="run-1")

    assert calls == ["prices", "launch"]
    attempt = world.run().current
    assert attempt is not None and attempt.price == 1.0


def test_a_run_with_a_dollar_ceiling_launches_nothing_at_an_unknown_price(world: World) -> None:
    world.submit(spec=CAPPED)
    machines = faulty(world.machines, Script({"prices": [Fault.UNAVAILABLE] * 9}))

    world.tell("Run Submitted", replace(world.plane, machines=machines), run_id="run-1")
    assert launched(world) == []

    world.settle(3)
    assert launched(world) == [(1, 1)]


def test_a_run_with_a_dollar_ceiling_asks_for_no_price_while_it_trains(world: World) -> None:
    world.start(spec=CAPPED)
    calls: list[str] = []

    world.look(plane=counted(world, "machines", world.machines, calls))

    assert calls == []


def test_a_launch_goes_before_what_users_are_told(world: World) -> None:
    machine = world.start()
    calls: list[str] = []
    plane = counted(world, "machines", world.machines, calls)
    plane = replace(plane, publisher=counted(world, "publisher", world.publisher, calls).publisher)

    world.warn(machine, plane=plane)

    assert calls.index("launch") < calls.index("publish")


# looking again


def test_a_launch_whose_answer_was_lost_is_looked_at_before_the_next_sweep(world: World) -> None:
    machine = world.start()
    queue = ListQueue()
    machines = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))

    world.warn(machine, plane=replace(world.plane, machines=machines, runs_queue=queue))

    assert queue.sent == ["run-1"]
    (after,) = queue.after
    due_at = world.run().due_at
    assert due_at is not None and after == due_at - world.clock.now() < timedelta(minutes=1)


class Ticking(ManualClock):
    """A clock that goes on by itself, as real ones do."""

    def now(self) -> datetime:
        return self.advance(timedelta(milliseconds=7))


@pytest.mark.parametrize("clock", [ManualClock, Ticking])
def test_a_run_in_good_health_waits_for_the_sweep(clock: type[ManualClock]) -> None:
    world = World(clock=clock())
    queue = ListQueue()
    world.start()

    world.look(plane=replace(world.plane, runs_queue=queue))

    assert queue.sent == []


def test_the_same_event_again_asks_for_no_second_early_look(world: World) -> None:
    machine = world.start()
    queue = ListQueue()
    machines = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))
    plane = replace(world.plane, machines=machines, runs_queue=queue)

    for _ in range(5):
        world.warn(machine, plane=plane)

    assert queue.sent == ["run-1"]


def test_a_queue_that_refuses_an_early_look_stops_nothing(world: World) -> None:
    machine = world.start()
    machines = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))
    queue = faulty(ListQueue(), lambda method: Fault.UNAVAILABLE)

    answer = world.warn(machine, plane=replace(world.plane, machines=machines, runs_queue=queue))

    assert answer == {"batchItemFailures": []}


# checkpoints


def test_a_committed_checkpoint_is_verified_at_once(world: World) -> None:
    world.start()
    world.checkpoint()

    world.tell("Checkpoint Committed", run_id="run-1", generation=1, save=1)

    (checkpoint,) = world.run().checkpoints
    assert checkpoint.verified


def test_a_checkpoint_with_a_missing_shard_is_condemned_and_says_why(world: World) -> None:
    world.start()
    world.checkpoint()
    (stored,) = [o for o in world.objects.list_versions("runs/run-1/shards/") if o.size == len(b"weights")]
    world.objects.remove(stored.key)

    world.tell("Checkpoint Committed", run_id="run-1", generation=1, save=1)

    (checkpoint,) = world.run().checkpoints
    assert checkpoint.condemned and checkpoint.verdict is not None and stored.key in checkpoint.verdict.problem


def test_a_checkpoint_that_could_not_be_restored_is_condemned(world: World) -> None:
    world.start()
    world.checkpoint()
    world.tell("Checkpoint Committed", run_id="run-1", generation=1, save=1)

    world.tell("Checkpoint Damaged", run_id="run-1", generation=1, save=1, problem="shard 0 differs")

    (checkpoint,) = world.run().checkpoints
    assert checkpoint.condemned and checkpoint.verdict is not None and "shard 0" in checkpoint.verdict.problem


def test_a_manifest_of_a_newer_format_is_left_alone_and_stops_nothing(world: World) -> None:
    from tests.handlers.checkpoints import newer_format, put_checkpoint, put_manifest_bytes

    machine = world.start()
    _, manifest = put_checkpoint(world.objects, "run-1", 1, 7)
    later = replace(manifest, save=1)
    world.store.commit(put_manifest_bytes(world.objects, later, newer_format(later)), machine)

    answer = world.tell("Checkpoint Committed", run_id="run-1", generation=1, save=1)
    world.warn(machine)

    assert answer == {"batchItemFailures": []}
    (checkpoint,) = world.run().checkpoints
    assert checkpoint.pending
    assert launched(world) == [(1, 1), (2, 2)]


# what users follow


def test_each_change_of_status_is_published_once(world: World) -> None:
    machine = world.start()
    world.warn(machine)
    world.warn(machine)

    moves = [(e["from"], e["to"]) for e in world.publisher.of("Run Status Changed")]

    assert [to for _, to in moves] == ["launching", "starting", "running", "handover"]
    assert all(before != after for before, after in moves)
    assert {e["run_id"] for e in world.publisher.of("Run Status Changed")} == {"run-1"}


def test_an_event_bus_that_is_out_of_order_stops_nothing(world: World) -> None:
    machine = world.start()
    deaf = replace(world.plane, publisher=faulty(world.publisher, lambda method: Fault.UNAVAILABLE))

    answer = world.warn(machine, plane=deaf)

    assert answer == {"batchItemFailures": []}
    assert launched(world) == [(1, 1), (2, 2)]


# two at once, and crashes everywhere


def at_once(*steps: Callable[[], Any]) -> None:
    barrier = threading.Barrier(len(steps))
    failures: list[BaseException] = []

    def run(step: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures, failures


@pytest.mark.parametrize("round_", range(20))
def test_handlers_at_once_launch_one_replacement(round_: int) -> None:
    world = World()
    machine = world.start()
    world.checkpoint()

    at_once(*[lambda: world.warn(machine)] * 4, lambda: world.look(), lambda: world.look())
    world.settle(2)

    assert launched(world) == [(1, 1), (2, 2)]


def story(world: World, plane: ControlPlane) -> None:
    """A notice, the end of the machine, and the replacement at work; every step may die in the middle."""
    (machine,) = [m.instance_id for m in world.machines.alive]
    for step in (
        lambda: world.warn(machine, plane=plane),
        lambda: world.warn(machine, plane=plane),
        lambda: world.change(machine, InstanceState.TERMINATED, plane=plane),
        lambda: world.look(plane=plane),
    ):
        try:
            step()
        except (Crash, Exception):  # noqa: BLE001 - whatever it died of, the story goes on
            continue


CALLS = [
    ("store", ("run_of", "load", "save", "fence", "record_verdict")),
    ("machines", ("launch", "find", "states", "terminate", "prices")),
    ("objects", ("get", "list_versions")),
    ("publisher", ("publish",)),
    ("switch", ("launches_allowed",)),
]
FAULTS = [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY, Fault.THROTTLE, Fault.UNAVAILABLE]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("port", "method"), [(port, method) for port, methods in CALLS for method in methods])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_after_a_fault_at_any_call_the_sweep_brings_one_replacement(
    port: str, method: str, call: int, fault: Fault
) -> None:
    world = World()
    world.start()
    world.checkpoint()
    plane = replace(world.plane, **{port: faulty(getattr(world, port), at(method, call, fault))})

    story(world, plane)
    for _ in range(30):
        world.sweep(timedelta(seconds=20))
        keep_beating(world)

    assert [m.generation for m in world.machines.alive] == [2], world.store.timeline("run-1")
    current = world.run().current
    assert current is not None and current.instance_id == world.machines.alive[0].instance_id
    assert current.state in (AttemptState.BOOTING, AttemptState.RUNNING)


def keep_beating(world: World) -> None:
    """The newest machine boots and gives signs of life, so that nobody takes it for dead."""
    current = world.run().current
    if current is not None and current.instance_id is not None and current.live:
        world.beat("run-1", current.generation, Phase.RESTORING)


def test_two_faults_in_a_row_are_survived_as_well(world: World) -> None:
    world.start()
    world.checkpoint()
    store = faulty(world.store, Script({"save": [Fault.LOST_REPLY, Fault.THROTTLE, Fault.CRASH_AFTER]}))
    machines = faulty(world.machines, Script({"launch": [Fault.LOST_REPLY, Fault.CRASH_AFTER]}))

    story(world, replace(world.plane, store=store, machines=machines))
    for _ in range(30):
        world.sweep(timedelta(seconds=20))
        keep_beating(world)

    assert [m.generation for m in world.machines.alive] == [2]


def test_a_lost_answer_of_ec2_is_followed_by_the_same_request(world: World) -> None:
    machine = world.start()
    machines = faulty(world.machines, at("launch", 1, Fault.LOST_REPLY))

    world.warn(machine, plane=replace(world.plane, machines=machines))
    world.change(machine, InstanceState.TERMINATED)
    world.settle(5)

    assert launched(world) == [(1, 1), (2, 2)]
    tokens = [request["ClientToken"] for request in world.machines.requests]
    assert tokens[0] == "run-1.1.1" and set(tokens[1:]) == {"run-1.2.2"}


def test_a_drained_attempt_hands_over(world: World) -> None:
    machine = world.start()
    world.warn(machine)
    world.checkpoint(save=2, step=20)
    world.release("run-1", machine, 1)
    world.exit("run-1", 1, EXIT_DRAINED)

    world.train()
    world.change(machine, InstanceState.TERMINATED)

    assert world.run().status is RunStatus.RUNNING
    assert [m.generation for m in world.machines.alive] == [2]


def test_lines_for_people_are_json(world: World) -> None:
    world.warn(world.start())

    for _, message, fields in world.ledger.lines:
        assert json.loads(json.dumps({"message": message, **fields}))


def test_a_spec_without_failover_stops_at_the_first_loss(world: World) -> None:
    machine = world.start(spec=replace(SPEC, failover=False))

    world.change(machine, InstanceState.TERMINATED)
    world.settle(5)

    assert world.run().status is RunStatus.FAILED
    assert len(world.machines.machines) == 1


def test_batch_records_keep_their_order(world: World) -> None:
    machine = world.start()

    events = batch(warning(machine), changed(machine, InstanceState.SHUTTING_DOWN))

    assert [record["messageId"] for record in events["Records"]] == ["m-0", "m-1"]


# what a save may come to


class Interrupted(MemoryStore):
    """A store in which somebody else writes just before one of our saves."""

    before_save = 0  # which save, counted from now; 0: none

    def save(self, before: Run, after: Run) -> Run:
        self.before_save -= 1
        if self.before_save == 0:
            row = self.load(before.run_id)
            super().save(row, replace(row, due_at=row.due_at))
        return super().save(before, after)


@pytest.mark.parametrize("save", [1, 2, 3, 4])
def test_what_an_act_brought_survives_a_lost_race(save: int) -> None:
    store = Interrupted()
    world = World(store=store)
    machine = world.start()

    store.before_save = save
    world.warn(machine)

    run = world.run()
    assert len(world.machines.requests) == 2
    assert run.current is not None and run.current.instance_id == world.machines.alive[-1].instance_id
    assert run.intent is None


def test_a_lost_reply_to_the_claim_does_not_delay_the_launch(world: World) -> None:
    machine = world.start()
    store = faulty(world.store, at("save", 1, Fault.LOST_REPLY))

    world.warn(machine, plane=replace(world.plane, store=store))

    assert launched(world) == [(1, 1), (2, 2)]


def test_nothing_is_launched_that_is_not_written_down(world: World) -> None:
    class Careful(MemoryMachines):
        def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
            intent = world.run().intent
            assert intent is not None and intent.request == dict(request) and intent.sent > 0
            return super().launch(request, now, first=first)

    class Silent(MemoryStore):
        dropped = False

        def save(self, before: Run, after: Run) -> Run:
            if after.intent is not None and not self.dropped:
                self.dropped = True
                raise OutcomeUnknown("the connection broke before anything was sent")
            return super().save(before, after)

    world.store, world.machines = Silent(), Careful()
    world.submit()

    answer = world.tell("Run Submitted", run_id="run-1")

    assert answer == {"batchItemFailures": []}
    assert launched(world) == [(1, 1)]


def test_an_act_that_must_wait_brings_no_event_back(world: World) -> None:
    machine = world.start()
    store = faulty(world.store, at("fence", 1, Fault.UNAVAILABLE))

    answer = world.change(machine, InstanceState.TERMINATED, plane=replace(world.plane, store=store))

    assert answer == {"batchItemFailures": []}
    assert world.ledger.counts[POSTPONED] == 1
    attempt, due_at = world.run().attempt(1), world.run().due_at
    assert attempt is not None and attempt.state is AttemptState.ENDED
    assert due_at is not None and due_at <= world.clock.now() + timedelta(minutes=1)
    world.sweep(timedelta(minutes=1))
    assert (2, 2) in launched(world)


def test_a_bucket_that_stays_out_of_order_holds_a_launch_up_for_a_bounded_time(world: World) -> None:
    machine = world.start()
    world.checkpoint()
    broken = replace(world.plane, objects=faulty(world.objects, lambda method: Fault.UNAVAILABLE))

    world.change(machine, InstanceState.TERMINATED, plane=broken)
    assert launched(world) == [(1, 1)]

    for _ in range(4):
        world.sweep(timedelta(minutes=1), plane=broken)
    assert (2, 2) in launched(world)
    assert world.run().checkpoints[0].pending


def test_a_damage_that_is_told_twice_is_written_once(world: World) -> None:
    world.start()
    world.checkpoint()

    for _ in range(2):
        world.tell("Checkpoint Damaged", run_id="run-1", generation=1, save=1, problem="shard 0 differs")

    assert [e.kind for e in world.store.timeline("run-1")].count("condemned") == 1


def test_the_damage_of_a_checkpoint_that_was_never_committed_says_nothing(world: World) -> None:
    world.start()

    answer = world.tell("Checkpoint Damaged", run_id="run-1", generation=1, save=9, problem="?")

    assert answer == {"batchItemFailures": []}
    assert "condemned" not in [e.kind for e in world.store.timeline("run-1")]


def test_of_several_unverified_checkpoints_the_newest_whole_one_is_enough(world: World) -> None:
    world.start()
    world.checkpoint(save=1, step=10)
    world.checkpoint(save=2, step=20)
    world.checkpoint(save=3, step=30)
    last = world.run().checkpoints[0].commit
    world.objects.remove(last.manifest_key)

    world.tell("Checkpoint Committed", run_id="run-1", generation=1, save=3)

    assert [c.state for c in world.run().checkpoints] == ["condemned", "verified", "committed"]
