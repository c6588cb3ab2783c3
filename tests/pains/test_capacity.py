"""What users of other tools suffer when capacity is short. Each test is named as they would say it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from spotrelay.core.decide import decide
from spotrelay.core.decisions import Reserve
from spotrelay.core.experience import Experience, PoolRecord
from spotrelay.core.live import EXIT_DRAINED, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Limits
from spotrelay.testing import MemoryMachines, RequestRate
from tests.core.test_scoring import run_with_checkpoint
from tests.handlers.plane import SPEC, World, warning

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    return World()


def test_failover_does_not_go_back_to_the_pool_that_was_just_lost(world: World) -> None:
    """A recovery that asks the zone first that has just taken the machine back asks where there is least to get.

    Known from: skypilot-org/skypilot#10021.
    """
    machine = world.start()
    world.checkpoint()

    world.warn(machine)

    first, second = world.run().attempts
    assert second.pool is not None and second.pool != first.pool
    lost_again = world.machines.requests[-1]["Pools"]
    assert all(pool["zone"] != first.pool.zone for pool in lost_again)  # type: ignore[union-attr]  # it had one


def test_a_quota_is_not_taken_for_missing_capacity(world: World) -> None:
    """A tool that takes a vCPU quota for a full zone walks through every zone and type of the region in vain, and
    the message says nothing of a quota.

    Known from: aws/karpenter-provider-aws#5789 and #1556, skypilot-org/skypilot#1450.
    """
    world.machines.refuse("MaxSpotInstanceCountExceeded", FailureScope.QUOTA)
    world.submit()

    world.tell("Run Submitted", run_id="run-1")
    world.settle(3)

    assert len(world.machines.requests) == 1  # g5.xlarge and g5.2xlarge draw on one quota, in all zones
    assert world.run().status is RunStatus.WAITING
    lines = [entry.text for entry in world.store.timeline("run-1")]
    assert any("MaxSpotInstanceCountExceeded (region-and-family-quota)" in line for line in lines)


def test_a_mass_reclaim_is_answered_for_every_run_though_ec2_throttles() -> None:
    """When a region takes back hundreds of machines at once, a single controller works through them one by one, and
    the last are gone before their turn; its retries make EC2's throttling worse.

    Known from: aws/aws-node-termination-handler#1022, aws/karpenter-provider-aws#5400.
    """
    from benchmarks.scale import storms

    storm = storms.measure(60, "--burst", "10", "--rate", "2")

    assert storm["exact"]
    assert storm["launch_calls_each"] < 2


def test_a_rebalance_recommendation_kills_nothing_and_launches_nothing(world: World) -> None:
    """Rebalance recommendations come for machines that then live on for days; who replaces at each of them moves in
    circles through the same pools.

    Known from: aws/karpenter-provider-aws#2853, aws/aws-node-termination-handler#321.
    """
    machine = world.start()
    event = warning(machine) | {"detail-type": "EC2 Instance Rebalance Recommendation"}

    for _ in range(10):
        world.deliver(event | {"detail": {"instance-id": machine}})
        world.beat("run-1", 1)
        world.sweep(MINUTE)

    assert [m.instance_id for m in world.machines.machines] == [machine]
    assert not world.machines.terminations
    assert sum(entry.kind == "rebalance" for entry in world.store.timeline("run-1")) == 1


@pytest.mark.parametrize(("gib", "region"), [(1, "us-east-1"), (400, "eu-west-1")])
def test_the_cheapest_region_is_not_chosen_when_the_checkpoint_costs_more_to_carry_there(gib: int, region: str) -> None:
    """The cheapest machine is no bargain when it stands an ocean away from the data.

    Known from: skypilot-org/skypilot#1819.
    """
    from tests.core.test_scoring import HOUR, NOON, ZONES

    here, away = Pool("eu-west-1", "eu-west-1a", "g5.xlarge"), Pool("us-east-1", "us-east-1a", "g5.xlarge")
    known = tuple(PoolRecord(p, NOON, hours=50, losses=10, price=price) for p, price in ((here, 0.5), (away, 0.45)))

    decision = decide(
        run_with_checkpoint(gib), NOON + HOUR, Site(ZONES, home="eu-west-1", experience=Experience(known))
    )

    assert isinstance(decision, Reserve)
    assert decision.rung.pools[0].region == region


def test_no_capacity_anywhere_is_waited_for_and_not_hammered(world: World) -> None:
    """An autoscaling group asked every 14 seconds for an hour and a half, 385 times, for what was not there.

    Known from: a public capture of "Launch Unsuccessful" events.
    """
    world.machines.refuse("InsufficientInstanceCapacity")
    world.submit()

    world.settle(90)

    assert world.run().status is RunStatus.WAITING
    assert len(world.machines.requests) < 60
    world.machines.allow()
    world.settle(15)
    assert len(world.machines.alive) == 1


def test_a_throttled_launch_is_the_same_launch_later_and_never_a_second_one() -> None:
    """A tool that lets the SDK make up a token launches again when it asks again.

    Known from: the EC2 API's idempotency rules; no tool of the comparison sets a token of its own.
    """
    world = World(machines=MemoryMachines(RequestRate(0, 0.0)))
    world.submit()
    world.sweep()
    assert world.machines.throttled == 1
    world.machines._rate = None

    world.settle(5)

    assert {request["ClientToken"] for request in world.machines.requests} == {"run-1.1.1"}
    assert len(world.machines.machines) == 1


def test_spot_that_dies_while_booting_again_and_again_does_not_go_on_for_ever(world: World) -> None:
    """A machine whose bootstrap fails is replaced by one whose bootstrap fails, all night long.

    Known from: aws/aws-parallelcluster-node#702.
    """
    world.submit(spec=replace(SPEC, instance_types=("g5.xlarge",)))
    world.sweep()

    for _ in range(30):
        for machine in world.machines.alive:
            world.change(machine.instance_id, InstanceState.TERMINATED)
        world.sweep(MINUTE)

    run = world.run()
    assert run.status is RunStatus.FAILED
    assert len(world.machines.machines) == run.spec.limits.max_failures
    assert "max_failures" in run.outcome_why


def a_pair_trains(world: World) -> tuple[str, str]:
    """Two machines of one attempt, with a checkpoint."""
    world.submit(spec=replace(SPEC, nodes=2))
    world.sweep()
    first, second = (machine.instance_id for machine in world.machines.machines)
    for machine in (first, second):
        world.machines.set_state(machine, InstanceState.RUNNING)
    world.store.take_lease("run-1", 1, first)
    world.store.beat(Heartbeat("run-1", 1, 1, Phase.WAITING, node=1))
    world.beat("run-1", 1, first_step=True)
    world.tell("Attempt Reported", run_id="run-1", generation=1, what="first-step")
    world.checkpoint()
    return first, second


def test_one_node_lost_drains_all_nodes_at_once_and_only_that_node_is_built_anew(world: World) -> None:
    """One node of a training is lost; the others hang in a collective for half an hour, or everything is rebuilt.

    Known from: skypilot-org/skypilot#3907, pytorch/pytorch#111646.
    """
    first, second = a_pair_trains(world)

    world.warn(second)

    before, after = world.run().attempts
    assert before.state is AttemptState.DRAINING
    (fresh,) = world.machines.machines[2:]
    assert after.instance_ids == (first, fresh.instance_id)
    assert fresh.pool == before.pool


def test_where_its_zone_has_no_other_node_all_of_them_move_together_and_nobody_waits_for_ever(world: World) -> None:
    """The survivors of a gang are billed while a node is sought that never comes.

    Known from: skypilot-org/skypilot#3907.
    """
    first, second = a_pair_trains(world)
    pool = world.run().attempts[0].pool
    assert pool is not None
    world.machines.refuse(zone=pool.zone)

    world.warn(second)
    world.release("run-1", first, 1)
    world.exit("run-1", 1, EXIT_DRAINED)
    world.change(second, InstanceState.TERMINATED)
    for _ in range(4):
        world.sweep(MINUTE)

    pair = world.run().attempts[-1]
    assert len(pair.instance_ids) == 2
    assert not {first, second} & set(pair.instance_ids)
    assert {m.instance_id for m in world.machines.alive} == set(pair.instance_ids)
    assert {m.pool.zone for m in world.machines.alive}.isdisjoint({pool.zone})


def test_spot_that_is_lost_again_and_again_gives_way_to_on_demand_for_a_stated_reason(world: World) -> None:
    """A build was restarted on Spot nine times in an evening; each time it was taken again.

    Known from: runs-on/runs-on#337.
    """
    prices = {"g5.xlarge": 1.0, "g5.2xlarge": 2.0}
    spec = replace(SPEC, on_demand=True, on_demand_after_losses=3, limits=Limits(on_demand_prices=prices))
    world.start(spec=spec)

    for _ in range(3):
        world.clock.advance(10 * MINUTE)
        world.change(world.machines.alive[0].instance_id, InstanceState.TERMINATED)
        world.train()

    assert [a.pool.market for a in world.run().attempts if a.pool] == ["spot", "spot", "spot", "on-demand"]
    reasons = [entry.text for entry in world.store.timeline("run-1") if entry.kind == "reserved"]
    assert "3" in reasons[-1] and "on-demand" in reasons[-1]
