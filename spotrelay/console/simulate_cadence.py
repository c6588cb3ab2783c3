"""`spotrelay simulate-cadence`: when the shim would save on recorded Spot capacity, beside every fixed interval."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from spotrelay.console.output import as_json, aside, table, tell
from spotrelay.core.errors import InvalidInput
from spotrelay.core.hazard import mean_life
from spotrelay.core.spec import Cadence
from spotrelay.simulation.cadences import Case, Result, compare_cadences
from spotrelay.simulation.spells import Spell, read_spells

BLOCK = re.compile(r"(<!-- measured: simulate-cadence -->\n).*?(<!-- end -->)", re.DOTALL)
COSTS_S = (1.0, 5.0, 30.0, 60.0)
SHARES = (0.0, 0.6, 0.9)


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    traces: Path
    costs_s: tuple[float, ...]
    announced: tuple[float, ...]
    upload_s: float
    restart_s: float
    instance_type: str  # whose supposed life is the prior
    seed: int
    json: bool
    page: Path | None = None  # a document whose block of figures is renewed


def simulate(options: Options) -> None:
    """Replay and print.

    Raises:
        InvalidInput: an option or traces that cannot be replayed; says why.
    """
    cases = [
        Case(cost, share, options.upload_s, options.restart_s)
        for cost, share in product(options.costs_s or COSTS_S, options.announced or SHARES)
    ]
    if not all(case.cost_s > 0 and 0 <= case.announced <= 1 for case in cases):
        raise InvalidInput("--cost is above zero, --announced a share between 0 and 1")
    results = {name: _results(spells, cases, options) for name, spells in read_spells(options.traces).items()}
    if options.json:
        tell(as_json(_answer(options, results)))
    else:
        _show(results)
    if options.page is not None:
        _renew(options.page, _tables(results))


def _results(spells: tuple[Spell, ...], cases: list[Case], options: Options) -> list[Result]:
    prior_s = mean_life(options.instance_type)
    return [compare_cadences(spells, case, Cadence(), prior_s, options.seed) for case in cases]


def _answer(options: Options, results: dict[str, list[Result]]) -> dict[str, Any]:
    worst = {name: max(each, key=lambda result: result.behind_points) for name, each in results.items()}
    return {
        "traces": {
            name: {**_figures(worst[name]), "cases": [_figures(each) for each in results[name]]} for name in results
        },
        "worst_behind_points": max(round(each.behind_points, 2) for each in worst.values()),
        "upload_s": options.upload_s,
        "restart_s": options.restart_s,
        "instance_type": options.instance_type,
        "seed": options.seed,
    }


def _figures(result: Result) -> dict[str, Any]:
    best = result.best_fixed
    return {
        "best_fixed": {"interval_s": best.interval_s, "efficiency": round(best.efficiency, 4)},
        "spotrelay": {"efficiency": round(result.spotrelay.efficiency, 4)},
        "behind_points": round(result.behind_points, 2),
        "cost_s": result.case.cost_s,
        "announced": result.case.announced,
    }


def _show(results: dict[str, list[Result]]) -> None:
    headings = ("trace", "cost", "announced", "best fixed", "efficiency", "spotrelay", "behind")
    table(headings, (_row(name, each) for name, every in results.items() for each in every))
    worst = max(each.behind_points for every in results.values() for each in every)
    aside(f"At worst {worst:.2f} points behind the fixed interval that is best in hindsight, for that trace and case.")


def _row(name: str, result: Result) -> tuple[str, ...]:
    return (
        name,
        f"{result.case.cost_s:g} s",
        f"{result.case.announced:g}",
        f"{result.best_fixed.interval_s:g} s",
        f"{100 * result.best_fixed.efficiency:.2f} %",
        f"{100 * result.spotrelay.efficiency:.2f} %",
        f"{result.behind_points:+.2f}",
    )


def _tables(results: dict[str, list[Result]]) -> str:
    """The figures as Markdown: by case over all traces, then by trace over all cases."""
    lines = [
        "| cost | announced | best fixed | its efficiency | Spotrelay's | behind, at worst |",
        "|---|---|---|---|---|---|",
    ]
    for every in zip(*results.values(), strict=True):
        case = every[0].case
        fixed = sorted(each.best_fixed.interval_s or 0 for each in every)
        best, ours = (
            mean(each.efficiency for each in kind)
            for kind in zip(*((r.best_fixed, r.spotrelay) for r in every), strict=True)
        )
        lines.append(
            f"| {case.cost_s:g} s | {case.announced:g} | {fixed[0]:g} to {fixed[-1]:g} s | {100 * best:.2f} % | "
            f"{100 * ours:.2f} % | {max(each.behind_points for each in every):+.2f} |"
        )
    lines += ["", "| trace | behind, at worst | on average |", "|---|---|---|"]
    for name, each in results.items():
        behind = [result.behind_points for result in each]
        lines.append(f"| `{name}` | {max(behind):+.2f} | {mean(behind):+.2f} |")
    return "\n".join(lines) + "\n"


def _renew(page: Path, tables: str) -> None:
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{page}: cannot be read: {error}") from error
    renewed, count = BLOCK.subn(lambda found: f"{found[1]}{tables}{found[2]}", text)
    if not count:
        raise InvalidInput(f"{page}: it has no block <!-- measured: simulate-cadence --> … <!-- end -->")
    page.write_text(renewed, encoding="utf-8")
