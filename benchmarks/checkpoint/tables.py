"""The benchmark's figures as tables of the page."""

from __future__ import annotations

from typing import Any

from benchmarks.checkpoint.systems import SYSTEMS

Found = dict[str, Any]
Row = tuple[object, ...]


def rows(result: Found) -> list[Row]:
    """Tables for the page, parted by empty rows."""
    found: list[Row] = []
    for size, systems in result["sizes"].items():
        found += [_head(size), *(_row(name, systems[name], result) for name in SYSTEMS if name in systems), ()]
    found += [("trainer_shim", *result["ratios"]), *_compared(result), ()]
    found += [("alone", "value"), *((key.replace("_", " "), result[key]) for key in _ALONE if key in result)]
    absent = [(SYSTEMS[name].label, why) for name, why in result["absent"].items()]
    return [*found, (), ("not measured", "why"), *absent] if absent else found


def _head(size: str) -> Row:
    return (
        f"{size} of state",
        "stall, s",
        "durable, s",
        "beside training, s",
        "load, s",
        "start to first step, s",
        "extra memory save / restore, of the state",
        "stalled, one per 10 s",
        "training lost, one per 10 s",
        "flipped bits",
    )


def _row(name: str, figures: Found, result: Found) -> Row:
    lost = figures["lost_share"]
    flips = result["damages"].get(name, {})
    return (
        SYSTEMS[name].label + (f" ({figures['fastest']})" if "fastest" in figures else ""),
        figures["stall_s"],
        figures["durable_s"],
        figures["durable_beside_s"] or "–",
        figures["load_s"],
        figures["first_step_s"],
        f"{'–' if figures['extra_save'] is None else figures['extra_save']} / {figures['extra_restore']}",
        f"{100 * figures['stalled_share']:.1f} %",
        "–" if lost is None else f"{100 * lost[1]:.0f} % ({100 * lost[0]:.0f} to {100 * lost[2]:.0f})",
        "; ".join(f"{kind}: {outcome}" for kind, outcome in flips.items()) or "–",
    )


def _compared(result: Found) -> list[Row]:
    by_size: dict[str, Any] = result["ratios"]
    keys = next(iter(by_size.values()))
    return [(key.replace("_", " "), *("–" if v[key] is None else v[key] for v in by_size.values())) for key in keys]


_ALONE = (
    "flips_found",
    "emergency_decided_ms",
    "emergency_durable_s",
    "emergency_vs_normal",
    "emergency_extra_memory",
    "frozen_uploaded_share",
    "frozen_changed_share",
    "import_ms",
)
