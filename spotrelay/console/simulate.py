"""`spotrelay simulate`: the spec's runs on recorded Spot capacity, beside simpler policies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotrelay.console.output import as_json, aside, table, tell
from spotrelay.console.specfile import read_spec
from spotrelay.core.errors import InvalidInput
from spotrelay.simulation.comparison import Comparison, compare
from spotrelay.simulation.plot import draw
from spotrelay.simulation.scenario import Assumptions, Figures, Scenario, scenario
from spotrelay.simulation.traces import read_traces


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
    played = scenario(spec, traces, options.runs, options.hours, options.seed, assumptions)
    comparison = compare(played, options.seed, not options.alone)
    if options.json:
        tell(as_json(_answer(options, played, comparison)))
    else:
        _show(options, played, comparison)
    if options.plot is not None:
        draw(comparison, options.plot, _title(options, played))


def _answer(options: Options, played: Scenario, comparison: Comparison) -> dict[str, Any]:
    return {
        "policies": comparison.policies,
        "runs": options.runs,
        "hours": options.hours,
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
    for why, count in comparison.failures.items():
        aside(f"{count} of Spotrelay's runs ended before their time: {why}")


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
    return f"{options.runs} runs of {options.hours:g} h {how}, in {len(played.traces)} pools, seed {options.seed}"
