"""Spotrelay beside the fixed policies, on the same calendar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import perf_counter

from spotrelay.simulation.policies import fixed_policies
from spotrelay.simulation.replay import replay
from spotrelay.simulation.scenario import HOUR, Figures, Scenario, figures

SPOTRELAY = "spotrelay"


@dataclass(frozen=True)
class Comparison:
    """What every policy came to."""

    policies: dict[str, Figures]  # Spotrelay first
    failures: dict[str, int]  # why runs of Spotrelay ended before their time, and how many
    run_days_per_minute: float  # of Spotrelay's own replay on this machine


def compare(scenario: Scenario, seed: int, shared: bool = True) -> Comparison:
    """Replay the scenario under every policy.

    Args:
        seed: draws the home of each run, where the fixed policies ask first.
        shared: whether the runs learn from each other, as those of one account do.
    """
    began = perf_counter()
    ours = replay(scenario, shared)
    taken = max(perf_counter() - began, 1e-9)
    outcomes = {SPOTRELAY: ours, **fixed_policies(scenario, seed)}
    hours = scenario.spec.deadline_hours
    deadline = None if hours is None else hours * HOUR
    run_days = len(ours) * scenario.length / (24 * HOUR)
    return Comparison(
        {name: figures(each, scenario.length, deadline) for name, each in outcomes.items()},
        dict(Counter(o.failed for o in ours if o.failed)),
        run_days / taken * 60,
    )
