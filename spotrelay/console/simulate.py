"""`spotrelay simulate`: the spec's runs on recorded Spot capacity, beside simpler policies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotrelay.console.output import as_json, aside, table, tell
from spotrelay.console.specfile import read_spec
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Spec
from spotrelay.simulation.comparison import Comparison, compare
from spotrelay.simulation.plot import draw
from spotrelay.simulation.scenario import HOUR, Assumptions, Figures, Scenario, scenario
from spotrelay.simulation.traces import Seconds, read_traces


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    spec: Path
    traces: Path
    runs: int
    hours: float
    seed: int
    alone: bool  # each run learns by itself, instead of all those of the account together
    restart_s: float
    on_demand_price: float | None  # dollars an hour; None: the spec's, or 1
    spot_share: float  # of that
    plot: Path | None
    json: bool


def simulate(options: Options) -> None:
    """Replay and print.

    Raises:
        InvalidInput: a spec or traces that cannot be replayed; says why.
    """
    spec = read_spec(options.spec)
    if not spec.instance_types:
        raise InvalidInput("a replay knows no catalogue: name instance_types in the spec, not instance_requirements")
    traces = read_traces(options.traces, spec)
    price = options.on_demand_price or spec.limits.on_demand_prices.get(spec.instance_types[0], 1.0)
    assumptions = Assumptions(options.restart_s, price, options.spot_share)
    hours, work = max(options.hours, spec.deadline_hours or 0.0), _work(spec)
    played = scenario(spec, traces, options.runs, hours, options.seed, assumptions, work)
    comparison = compare(played, options.seed, not options.alone)
    if options.json:
        tell(as_json(_answer(options, played, comparison)))
    else:
        _show(options, played, comparison)
    if options.plot is not None:
        draw(comparison, options.plot, _title(options, played))


def _work(spec: Spec) -> Seconds | None:
    """What the runs have to do; None: they train to their end.

    Raises:
        InvalidInput: the deadline is a date, or nobody says how much is to be done by then.
    """
    if spec.deadline:
        raise InvalidInput("a replay has no calendar: give deadline_hours instead of deadline")
    if spec.deadline_hours is not None and spec.training_hours is None:
        raise InvalidInput("a replay cannot know the work: give training_hours beside deadline_hours")
    return None if spec.training_hours is None else spec.training_hours * HOUR


def _answer(options: Options, played: Scenario, comparison: Comparison) -> dict[str, Any]:
    return {
        "policies": comparison.policies,
        "runs": options.runs,
        "hours": played.length / HOUR,
        "training_hours": None if played.work is None else played.work / HOUR,
        "seed": options.seed,
        "shared_experience": not options.alone,
        "assumptions": played.assumptions,
        "pools": {str(t.pool): {"region": t.pool.region, "availability": t.availability} for t in played.traces},
        "failures": comparison.failures,
        "run_days_per_minute": round(comparison.run_days_per_minute),
    }


def _show(options: Options, played: Scenario, comparison: Comparison) -> None:
    headings = ("policy", "productive", "launches", "losses", "cost", "per productive hour")
    table(headings, (_row(name, figures) for name, figures in comparison.policies.items()))
    aside(f"{_title(options, played)}. Launches, losses and dollars are means a run.")
    aside(f"{comparison.run_days_per_minute:,.0f} simulated run-days a minute on this machine.")
    if played.work is not None:
        for name, each in comparison.policies.items():
            aside(_finish(name, each))
    for why, count in comparison.failures.items():
        aside(f"{count} of Spotrelay's runs ended before their time: {why}")


def _finish(name: str, figures: Figures) -> str:
    """How often, and when, the work of a policy's runs was done."""
    if figures.finished is None:
        return f"{name}: no run finished its work"
    in_time = "" if figures.in_time is None else f", {100 * figures.in_time:.1f} % by the deadline"
    return f"{name}: {100 * figures.finished:.1f} % finished{in_time}, after {figures.hours or 0.0:.2f} h in the mean"


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    hour = figures.cost_per_productive_hour
    return (
        name,
        f"{100 * figures.productive:.2f} %",
        f"{figures.launches:.2f}",
        f"{figures.losses:.2f}",
        f"{figures.cost:.2f}",
        "none" if hour is None else f"{hour:.4f}",
    )


def _title(options: Options, played: Scenario) -> str:
    how = "each learning alone" if options.alone else "of one account"
    return (
        f"{options.runs} runs of {played.length / HOUR:g} h {how}, in {len(played.traces)} pools, seed {options.seed}"
    )
