from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from spotrelay.core.decisions import Conclude, Decision, Send
from spotrelay.core.experience import Experience
from spotrelay.core.placement import Pool
from spotrelay.core.run import RunStatus
from spotrelay.core.spec import Limits, Spec
from spotrelay.simulation import replay as replaying
from spotrelay.simulation.comparison import compare
from spotrelay.simulation.policies import fixed_policies, follow
from spotrelay.simulation.replay import replay
from spotrelay.simulation.scenario import Assumptions, Outcome, Scenario, figures, scenario
from spotrelay.simulation.traces import Trace, region_of, trace_of
from tests.simulation.synthetic import GAP_S, world

SPEC = Spec(("train",), ("p3.2xlarge",))
HOUR = 3600.0


def pool(zone: str) -> Pool:
    return Pool(region_of(zone), zone, "p3.2xlarge")


def by_hours(**hours: list[int]) -> tuple[Trace, ...]:
    """Traces with one probe an hour; the names stand for zones of three regions."""
    zones = {"home": "eu-west-1a", "sibling": "eu-west-1b", "abroad": "us-east-1a", "far": "ap-south-1a"}
    return tuple(trace_of(pool(zones[name]), HOUR, data) for name, data in hours.items())


def one_run(traces: tuple[Trace, ...], spec: Spec = SPEC) -> Scenario:
    """A single run over the whole length."""
    return Scenario(spec, traces, (0.0,), traces[0].length, Assumptions(restart=360.0))


def synthetic(seed: int, runs: int = 60, spec: Spec = SPEC) -> Scenario:
    traces = tuple(trace_of(pool(zone), GAP_S, data) for zone, data in world(seed).items())
    return scenario(spec, traces, runs, 72.0, seed)


# One run, worked out by hand


def test_a_run_on_one_machine_is_productive_but_for_its_start() -> None:
    (outcome,) = replay(one_run(by_hours(home=[1] * 10)))

    assert outcome == Outcome(productive=10 * HOUR - 360, launches=1, losses=0, cost=pytest.approx(3.5))


def test_a_loss_costs_a_launch_elsewhere() -> None:
    (outcome,) = replay(one_run(by_hours(home=[1, 1, 1, 0, 0], sibling=[1] * 5)))

    assert outcome == Outcome(5 * HOUR - 720, 2, 1, pytest.approx(5 * 0.35))


def test_a_gang_has_all_its_machines_or_none_and_pays_for_each() -> None:
    gang = replace(SPEC, nodes=4)
    counted = [
        trace_of(pool(z), HOUR, data, 4) for z, data in (("eu-west-1a", [4, 4, 3, 3]), ("us-east-1a", [2, 2, 4, 5]))
    ]

    (outcome,) = replay(one_run(tuple(counted), gang))

    assert outcome == Outcome(4 * HOUR - 720, 2, 1, pytest.approx(4 * 4 * 0.35))
    policies = fixed_policies(one_run(tuple(counted), gang), seed=0)
    assert policies["on_demand"][0].cost == pytest.approx(4 * 4 * 1.0)
    assert policies["clairvoyant"][0].cost == pytest.approx(4 * 4 * 0.35)


def test_waiting_for_capacity_is_not_paid_and_not_productive() -> None:
    (outcome,) = replay(one_run(by_hours(home=[1, 1, 0, 0, 1, 1])))

    assert outcome.launches == 2
    assert outcome.productive == pytest.approx(4 * HOUR - 720, abs=601)  # the ladder asks every ten minutes
    assert outcome.cost == pytest.approx((outcome.productive + 720) / HOUR * 0.35)


def test_a_machine_lost_before_its_first_step_is_paid_for_nothing() -> None:
    (outcome,) = replay(replace(one_run(by_hours(home=[1, 0])), assumptions=Assumptions(restart=2 * HOUR)))

    assert (outcome.productive, outcome.launches, outcome.losses) == (0.0, 1, 1)
    assert outcome.cost == pytest.approx(0.35)


def test_on_demand_is_the_last_rung_and_costs_its_price() -> None:
    spec = replace(SPEC, on_demand=True)

    (outcome,) = replay(one_run(by_hours(home=[1, 0, 0, 0]), spec))

    assert outcome == Outcome(4 * HOUR - 720, 2, 1, pytest.approx(0.35 + 3 * 1.0))


@pytest.mark.parametrize(
    ("limits", "word", "early"),
    [
        (Limits(max_hours=2.0), "max_hours", 0),
        (Limits(max_launches=1), "max_launches", 0),
        (Limits(max_dollars=0.7), "max_dollars", 300),  # it saves before
    ],
)
def test_the_specs_limits_end_a_run_as_they_do_in_production(limits: Limits, word: str, early: float) -> None:
    (outcome,) = replay(one_run(by_hours(home=[1, 1, 0, 1], sibling=[1, 1, 1, 1]), replace(SPEC, limits=limits)))

    assert word in outcome.failed
    assert outcome.productive == pytest.approx(2 * HOUR - 360 - early)
    assert outcome.cost == pytest.approx((2 - early / HOUR) * 0.35)


def test_a_run_without_failover_ends_with_its_machine() -> None:
    (outcome,) = replay(one_run(by_hours(home=[1, 0, 1], sibling=[1, 1, 1]), replace(SPEC, failover=False)))

    assert (outcome.launches, outcome.productive) == (1, HOUR - 360)
    assert "failover is off" in outcome.failed


def test_what_decides_is_the_real_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "decide", lambda run, now, site: Conclude(RunStatus.FAILED, "broken on purpose"))

    (outcome,) = replay(one_run(by_hours(home=[1])))

    assert outcome == Outcome(0.0, 0, 0, 0.0, "broken on purpose")


def test_a_long_wait_without_any_capacity_is_no_error() -> None:
    (outcome,) = replay(one_run(by_hours(home=[0] * 235 + [1], abroad=[0] * 236)))

    assert outcome.launches == 1


# The policies, worked out by hand

CROSSING = by_hours(
    home=[1, 1, 0, 0, 1, 1], sibling=[0, 0, 0, 1, 1, 1], abroad=[0, 0, 1, 0, 0, 0], far=[0, 0, 1, 1, 1, 1]
)


@pytest.mark.parametrize(
    ("policy", "up", "launches"), [("wait", 4, 2), ("region", 5, 2), ("clairvoyant", 6, 2), ("on_demand", 6, 1)]
)
def test_a_fixed_policy_does_what_its_name_says(policy: str, up: int, launches: int) -> None:
    scene = one_run(CROSSING)
    at_home = next(seed for seed in range(50) if fixed_home(scene, seed) == "eu-west-1a")

    (outcome,) = fixed_policies(scene, at_home)[policy]

    assert outcome.productive == up * HOUR - launches * 360
    assert outcome.launches == launches
    assert outcome.cost == pytest.approx(up * (1.0 if policy == "on_demand" else 0.35))


def fixed_home(scene: Scenario, seed: int) -> str:
    import random

    return random.Random(seed).choice(scene.traces).pool.zone


def test_the_next_region_is_asked_before_the_sibling() -> None:
    scene = one_run(by_hours(home=[1, 0, 0, 0], sibling=[1, 1, 1, 1], abroad=[1, 1, 0, 0]))
    seed = next(seed for seed in range(50) if fixed_home(scene, seed) == "eu-west-1a")

    (abroad,), (region,) = (fixed_policies(scene, seed)[name] for name in ("next_region", "region"))

    assert (abroad.launches, region.launches) == (3, 2)


def test_figures_are_means_and_failed_runs_do_not_flatter_the_price() -> None:
    outcomes = (Outcome(HOUR, 2, 1, 3.0), Outcome(0.0, 4, 3, 50.0, "limit"))

    found = figures(outcomes, 2 * HOUR)

    assert (found.productive, found.launches, found.losses, found.cost) == (0.25, 3.0, 2.0, 26.5)
    assert (found.cost_per_productive_hour, found.failed) == (3.0, 1)


# Many runs


def test_spotrelay_is_near_those_who_know_more_and_ahead_of_those_who_learn_nothing() -> None:
    """Over several worlds: what a clairvoyant makes of the future, and perfect hindsight of the pools."""
    mean: Counter[str] = Counter()
    for seed in (1, 2, 3, 4):
        scene = synthetic(seed)
        policies = compare(scene, seed).policies
        policies["hindsight"] = figures(hindsight(scene), scene.length)
        mean.update({f"{name} launches": each.launches / 4 for name, each in policies.items()})
        mean.update({f"{name} productive": each.productive / 4 for name, each in policies.items()})
        mean.update({f"{name} price": (each.cost_per_productive_hour or 9.0) / 4 for name, each in policies.items()})

    assert mean["spotrelay productive"] > mean["clairvoyant productive"] - 0.005
    assert mean["spotrelay productive"] > mean["next_region productive"] + 0.002
    assert mean["spotrelay launches"] < 1.15 * mean["hindsight launches"]
    assert mean["spotrelay launches"] < 0.8 * mean["next_region launches"]
    assert all(mean["spotrelay price"] < mean[f"{n} price"] for n in ("wait", "region", "next_region", "on_demand"))


def hindsight(scene: Scenario) -> list[Outcome]:
    """Always the pool whose spells are longest in the mean, over the whole trace and from the start."""

    def mean_spell(trace: Trace) -> float:
        return trace.availability / max(len(trace.changes), 1)

    ranked = sorted(scene.traces, key=mean_spell, reverse=True)
    return [follow(scene, lambda home, lost, now: ranked, ranked[0], start) for start in scene.starts]


def test_the_future_teaches_nothing() -> None:
    """Runs over before the traces part ways come out the same."""
    scene = synthetic(4)
    middle = scene.traces[0].length / 2
    other = tuple(
        replace(t, changes=tuple(c for c in t.changes if c < middle) + (() if t.up_until(middle) else (middle,)))
        for t in scene.traces
    )

    first, second = replay(scene), replay(replace(scene, traces=other))

    over = [i for i, start in enumerate(scene.starts) if start + scene.length < middle]
    assert len(over) > 10
    assert [first[i] for i in over] == [second[i] for i in over]
    assert first != second


def test_runs_learn_from_each_other() -> None:
    """The first finds out that its home takes machines back; the second need not."""
    flicker = [1, 0] * 30
    traces = by_hours(home=flicker, sibling=flicker[1:] + flicker[:1], abroad=[1] * 60)
    scene = replace(one_run(traces), starts=(0.0, 30 * HOUR), length=30 * HOUR)

    (first, together), (_, alone) = replay(scene), replay(scene, shared=False)

    assert together.launches < alone.launches
    assert together.launches == 1 < first.launches


def test_experience_is_what_saves_the_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = synthetic(6)
    wise = figures(replay(scene), scene.length)

    monkeypatch.setattr(replaying, "answered", lambda *known: Experience())
    forgetful = figures(replay(scene), scene.length)

    assert wise.launches < 0.8 * forgetful.launches


def test_a_replay_is_the_same_each_time() -> None:
    assert replay(synthetic(7, runs=10)) == replay(synthetic(7, runs=10))


def test_the_clock_goes_from_event_to_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions follow launches, not minutes: else 10,000 run-days take hours."""
    seen: Counter[type] = Counter()
    real = replaying.decide

    def counted(*arguments: Any) -> Decision:
        decision = real(*arguments)
        seen[type(decision)] += 1
        return decision

    monkeypatch.setattr(replaying, "decide", counted)
    replay(synthetic(8))

    assert sum(seen.values()) < 5 * seen[Send]
    assert sum(seen.values()) < 60 * 72 * 60 / 20  # looks that a watch each minute would make
