"""The policies that Spotrelay is compared with. Each sees capacity come back at once and asks without delay."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from spotrelay.simulation.scenario import HOUR, Outcome, Scenario
from spotrelay.simulation.traces import Seconds, Trace

Choice = Callable[[Trace, Trace | None, Seconds], list[Trace]]
"""From a run's home, what it lost last and the moment: the pools it would ask, best first."""


def fixed_policies(scenario: Scenario, seed: int) -> dict[str, list[Outcome]]:
    """Outcomes of every policy by name. A run's home, where it asks first, is drawn from all pools."""
    traces = scenario.traces
    dice = random.Random(seed)
    homes = [dice.choice(traces) for _ in scenario.starts]
    choices: dict[str, Choice] = {
        "wait": lambda home, lost, now: [home],
        "region": lambda home, lost, now: _order([t for t in traces if _near(t, home)], home, lost),
        "next_region": lambda home, lost, now: _elsewhere_first(_order(traces, home, lost), lost),
        "clairvoyant": lambda home, lost, now: sorted(traces, key=lambda t: -(t.up_until(now) or 0.0)),
    }
    outcomes = {
        name: [follow(scenario, choice, home, start) for home, start in zip(homes, scenario.starts, strict=True)]
        for name, choice in choices.items()
    }
    outcomes["on_demand"] = [_on_demand(scenario) for _ in scenario.starts]
    return outcomes


def _order(traces: tuple[Trace, ...] | list[Trace], home: Trace, lost: Trace | None) -> list[Trace]:
    """Home, its siblings, the rest; what was just lost comes last."""
    return sorted(traces, key=lambda t: (t is lost, t is not home, not _near(t, home)))


def _elsewhere_first(traces: list[Trace], lost: Trace | None) -> list[Trace]:
    return sorted(traces, key=lambda t: lost is not None and _near(t, lost))


def _near(a: Trace, b: Trace) -> bool:
    return a.pool.region == b.pool.region


def follow(scenario: Scenario, choice: Choice, home: Trace, start: Seconds) -> Outcome:
    """What a run that starts then comes to when it goes by this choice."""
    end = start + scenario.length
    held = losses = 0
    productive = paid = 0.0
    wanted = math.inf if scenario.work is None else scenario.work
    price = scenario.assumptions.spot * scenario.spec.nodes
    for begin, stop in _tenures(choice, home, start, end):
        held += 1
        done = begin + scenario.assumptions.restart + wanted - productive
        if done <= min(stop, end):
            paid += done - begin
            return Outcome(wanted, held, losses, paid / HOUR * price, finished=done - start)
        losses += stop < end
        paid += min(stop, end) - begin
        productive += max(min(stop, end) - begin - scenario.assumptions.restart, 0.0)
    return Outcome(productive, held, losses, paid / HOUR * price)


def _tenures(choice: Choice, home: Trace, now: Seconds, end: Seconds) -> Iterator[tuple[Seconds, Seconds]]:
    """When each machine was given and when it was taken back."""
    lost: Trace | None = None
    while now < end:
        wanted = choice(home, lost, now)
        got = next((t for t in wanted if t.up_until(now) is not None), None)
        if got is None:
            now = min((t.up_from(now) for t in wanted), default=math.inf)
            continue
        stop = got.up_until(now) or now
        yield now, stop
        now, lost = stop, got


def _on_demand(scenario: Scenario) -> Outcome:
    """One machine, or one gang, that nobody takes back."""
    restart, price = scenario.assumptions.restart, scenario.assumptions.on_demand * scenario.spec.nodes
    productive = max(scenario.length - restart, 0.0)
    if scenario.work is None or scenario.work > productive:
        return Outcome(productive, 1, 0, scenario.length / HOUR * price)
    done = restart + scenario.work
    return Outcome(scenario.work, 1, 0, done / HOUR * price, finished=done)
