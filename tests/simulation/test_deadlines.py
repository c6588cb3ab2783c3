"""Runs with work to do and a deadline, replayed through the real rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spotrelay.core.spec import Limits, Spec
from spotrelay.simulation.policies import fixed_policies
from spotrelay.simulation.replay import replay
from spotrelay.simulation.scenario import HOUR, Assumptions, Scenario, figures, scenario
from spotrelay.simulation.traces import trace_of
from tests.simulation.synthetic import GAP_S, world
from tests.simulation.test_replay import by_hours, one_run, pool

SPEC = Spec(
    ("train",), ("p3.2xlarge",), on_demand=True,
    limits=Limits(max_launches=400, on_demand_prices={"p3.2xlarge": 1.0}),
)  # fmt: skip


def due(deadline: float, work: float, spec: Spec = SPEC) -> Spec:
    return replace(spec, deadline_hours=deadline, training_hours=work)


def scarce(seed: int, deadline: float, work: float, runs: int = 20) -> Scenario:
    """Runs in the one region where there is next to nothing."""
    zones = {zone: data for zone, data in world(seed).items() if zone.startswith("us-east")}
    traces = tuple(trace_of(pool(zone), GAP_S, data) for zone, data in zones.items())
    return scenario(due(deadline, work), traces, runs, deadline, seed, work=work * HOUR)


@pytest.mark.parametrize(("deadline", "work"), [(10.1, 10), (12, 10), (16, 10), (24, 10), (60, 10), (30, 29)])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_deadline_is_met_that_on_demand_from_the_start_would_meet(
    seed: int, deadline: float, work: float
) -> None:
    scene = scarce(seed, deadline, work)
    assert scene.assumptions.restart + work * HOUR <= deadline * HOUR

    outcomes = replay(scene)

    assert all(o.finished is not None and o.finished <= deadline * HOUR for o in outcomes)
    assert all(o.productive == work * HOUR for o in outcomes)


def test_the_more_time_there_is_the_less_is_paid() -> None:
    costs = [figures(replay(scarce(3, deadline, 10)), 1.0).cost for deadline in (10.1, 14, 20, 40)]

    assert costs == sorted(costs, reverse=True)
    assert costs[0] == pytest.approx(10.05, abs=0.1)  # no time to try anything
    assert costs[-1] < 0.6 * costs[0]


def test_without_a_deadline_the_same_runs_wait_and_are_late() -> None:
    scene = scarce(1, 12, 10)
    patient = replace(scene, spec=replace(SPEC, on_demand=False))

    assert any(o.finished is None for o in replay(patient))
    assert figures(replay(scene), scene.length, 12 * HOUR).in_time == 1.0


def test_a_deadline_that_nothing_meets_is_run_on_on_demand_all_the_same() -> None:
    (outcome,) = replay(replace(one_run(by_hours(home=[0] * 10), due(8, 9)), work=9 * HOUR))

    assert (outcome.finished, outcome.launches) == (9 * HOUR + 360, 1)


def test_a_machine_on_spot_is_left_at_the_last_moment_and_its_work_is_kept() -> None:
    """Spot all the time, but with too little slack to survive its loss: on-demand before that."""
    (outcome,) = replay(replace(one_run(by_hours(home=[1] * 12), due(11.0, 10)), work=10 * HOUR))

    assert outcome.finished is not None and outcome.finished <= 11 * HOUR
    assert outcome.losses == 0 and outcome.launches <= 2


def test_on_demand_is_left_for_spot_when_it_comes_back() -> None:
    scene = replace(one_run(by_hours(home=[0, 0] + [1] * 28), replace(SPEC, training_hours=20.0)), work=20 * HOUR)

    (there_and_back,) = replay(scene)
    (stays,) = replay(replace(scene, spec=replace(scene.spec, back_to_spot=False)))

    assert (there_and_back.launches, stays.launches) == (4, 1)  # two returns find nothing, an hour apart
    assert there_and_back.cost < 0.6 * stays.cost


def test_a_fixed_policy_stops_when_its_work_is_done() -> None:
    scene = replace(one_run(by_hours(home=[1] * 10)), work=4 * HOUR, assumptions=Assumptions(restart=360.0))

    for name, (outcome,) in fixed_policies(scene, 0).items():
        assert outcome.finished == 4 * HOUR + 360, name
        assert outcome.productive == 4 * HOUR
        assert outcome.cost == pytest.approx((4 + 0.1) * (1.0 if name == "on_demand" else 0.35))
