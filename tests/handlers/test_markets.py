"""Leaving a machine for money: the real handlers on in-memory ports. Nobody is ended who has not saved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.control import ControlPlane
from spotrelay.core.budget import Books, Budget
from spotrelay.core.live import ASK_DRAIN, EXIT_DRAINED, Heartbeat, Phase
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.core.spec import AtCeiling, Limits, Spec
from spotrelay.testing import MemoryCells
from tests.handlers.plane import SPEC, World

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PRICES = {"g5.xlarge": 3.0, "g5.2xlarge": 4.0}
BOTH = replace(SPEC, on_demand=True, limits=Limits(on_demand_prices=PRICES))


@pytest.fixture
def world() -> World:
    return World()


def on_demand(world: World, spec: Spec = BOTH) -> str:
    """A run that found no Spot machine and trains on on-demand; Spot comes back meanwhile."""
    world.machines.refuse(market="spot")
    machine = world.start(spec=spec)
    world.machines.allow()
    return machine


def train_for(world: World, minutes: int, generation: int = 1, checkpoints_every: int = 10) -> None:
    """Heartbeats, checkpoints and the minutes' sweeps, until the attempt is asked to drain."""
    for minute in range(minutes):
        attempt = world.run().attempt(generation)
        if attempt is None or attempt.state is not AttemptState.RUNNING:
            return
        world.beat("run-1", generation)
        if minute % checkpoints_every == 0:
            save = len(world.store.checkpoints("run-1", 1000)) + 1
            world.checkpoint(save=save, step=10 * save)
            world.tell("Checkpoint Committed", run_id="run-1")
        world.sweep(MINUTE)


def drain(world: World, machine: str, generation: int = 1) -> None:
    """What the shim does when it is asked: save, give the lease back, say so."""
    save = len(world.store.checkpoints("run-1", 1000)) + 1
    world.checkpoint(save=save, step=10 * save)
    world.release("run-1", machine, generation)
    world.exit("run-1", generation, EXIT_DRAINED)


def markets(world: World) -> list[str]:
    return [a.pool.market for a in world.run().attempts if a.pool is not None]


def reasons(world: World, kind: str) -> list[str]:
    return [entry.text for entry in world.store.timeline("run-1") if entry.kind == kind]


def test_on_demand_is_left_for_spot_after_it_has_saved(world: World) -> None:
    machine = on_demand(world)
    train_for(world, 60)

    attempt = world.run().attempts[0]
    assert attempt.state is AttemptState.DRAINING and attempt.let_go
    assert world.store.beat(Heartbeat("run-1", 1, 10_000, Phase.TRAINING, step=10)) == ASK_DRAIN
    assert machine in [m.instance_id for m in world.machines.alive]
    assert markets(world) == ["on-demand", "spot"]

    drain(world, machine)
    world.settle(2)
    assert machine not in [m.instance_id for m in world.machines.alive]
    world.train()
    assert world.run().status is RunStatus.RUNNING and world.run().failures == 0
    (asked,) = reasons(world, "drain")
    assert "saves $" in asked and "$3.00 an hour" in asked


def test_without_spot_at_a_good_price_on_demand_is_kept(world: World) -> None:
    machine = on_demand(world)
    world.machines._price = 2.99

    train_for(world, 90)

    assert [m.instance_id for m in world.machines.alive] == [machine]


def test_when_spot_has_nothing_after_all_on_demand_is_asked_at_once(world: World) -> None:
    machine = on_demand(world, replace(BOTH, on_demand_after_s=0))
    train_for(world, 29)
    world.machines.refuse(market="spot")
    train_for(world, 30)

    assert markets(world) == ["on-demand", "on-demand"]
    drain(world, machine)
    world.train()
    world.machines.allow()
    train_for(world, 45, generation=2)
    assert world.run().attempts[1].state is AttemptState.RUNNING  # half an hour was enough before, now it takes an hour


def test_prices_are_asked_only_at_a_fresh_checkpoint(world: World) -> None:
    on_demand(world)
    asked: list[int] = []
    real = world.machines.prices
    world.machines.prices = lambda pools: asked.append(1) or real(pools)  # type: ignore[method-assign, func-returns-value]
    world.machines._price = 2.99

    train_for(world, 120, checkpoints_every=30)

    assert 1 <= len(asked) <= 4 * 4


def test_a_run_saves_before_its_dollars_are_used_up_and_ends(world: World) -> None:
    machine = world.start(spec=replace(SPEC, limits=Limits(max_dollars=2.0)))
    train_for(world, 130)

    assert world.run().attempts[0].state is AttemptState.DRAINING
    assert "limits.max_dollars" in reasons(world, "drain")[0]
    drain(world, machine)
    world.settle(5)

    assert world.run().status is RunStatus.FAILED
    assert "limits.max_dollars reached" in world.run().outcome_why
    assert len(world.machines.machines) == 1 and not world.machines.alive


class Account(World):
    """The same with a budget of an hour and a half, at a dollar an hour."""

    def __post_init__(self) -> None:
        self.cells = MemoryCells()
        self.dollars = 1.5

    @property
    def plane(self) -> ControlPlane:
        site = replace(self.site, budget=Budget(self.dollars))
        return replace(super().plane, site=site, books=Books(self.cells))


@pytest.mark.parametrize("at_ceiling", list(AtCeiling))
def test_an_account_without_money_lets_a_machine_save_and_go(at_ceiling: AtCeiling) -> None:
    world = Account()
    world.__post_init__()
    machine = world.start(spec=replace(SPEC, limits=Limits(at_ceiling=at_ceiling)))
    train_for(world, 100)

    attempt = world.run().attempts[0]
    assert attempt.state is AttemptState.DRAINING and attempt.paid_until is not None
    assert world.clock.now() < attempt.paid_until
    assert machine in [m.instance_id for m in world.machines.alive]
    drain(world, machine)
    world.settle(5)
    assert not world.machines.alive

    if at_ceiling is AtCeiling.STOP:
        assert world.run().status is RunStatus.FAILED
        return
    hours = 0.0
    while not world.machines.alive and hours < 24:
        world.sweep(6 * MINUTE)
        hours += 0.1
    assert 1 < hours < 24 and len(world.run().attempts) == 2  # with the next day


def test_a_spot_machine_is_left_at_the_last_moment_before_its_deadline(world: World) -> None:
    spec = replace(BOTH, deadline_hours=3.0, training_hours=2.0)
    machine = world.start(spec=spec)
    train_for(world, 120)

    assert world.run().attempts[0].state is AttemptState.DRAINING
    drain(world, machine)
    world.settle(2)
    assert markets(world) == ["spot", "on-demand"]
    assert "the deadline in" in reasons(world, "drain")[0]
    assert any("the deadline in" in text for text in reasons(world, "reserved"))
