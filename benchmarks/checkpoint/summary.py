"""From what the processes have said to figures."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.checkpoint.rounds import Found, Measured, Scale
from benchmarks.checkpoint.systems import SYSTEMS

EVERY_S = 10.0  # between two checkpoints, for the share of time that training stands still
FLOOR, OURS, LAZY, DCP, DCP_ASYNC = "floor", "ours", "ours-lazy", "dcp", "dcp-async"


def summary(measured: Measured, scale: Scale) -> Found:
    """The benchmark's result: ratios at the first size in front, and every system at every size behind."""
    sizes = {
        size: {
            name: _figures(measured.saves[size, name], measured.restores[size, name], name == FLOOR)
            for name in SYSTEMS
            if measured.restores.get((size, name))
        }
        for size in scale.sizes
    }
    first = sizes[scale.sizes[0]]
    flips = measured.damages.get(OURS, {})
    return {
        **_ratios(first),
        "flips_found": _share(outcome.startswith("found") for outcome in flips.values()),
        "stalled_share": first.get(OURS, {}).get("stalled_share"),
        "import_ms": round(measured.import_ms, 1),
        **_emergency(measured.emergency),
        **_frozen(measured.frozen),
        "ratios": {size: _ratios(found) for size, found in sizes.items()},
        "sizes": sizes,
        "damages": measured.damages,
        "absent": measured.absent,
    }


def _ratios(found: dict[str, Found]) -> Found:
    def ratio(key: str, name: str, to: str) -> float | None:
        if name not in found or to not in found or not found[to][key]:
            return None
        return round(float(found[name][key] / found[to][key]), 2)

    ours = found.get(OURS, {})
    return {
        "stall_vs_memcpy": ratio("stall_s", OURS, FLOOR),
        "stall_vs_dcp_async": ratio("stall_s", OURS, DCP_ASYNC),
        "stall_lazy_vs_dcp_async": ratio("stall_s", LAZY, DCP_ASYNC),
        "durable_vs_floor": ratio("durable_s", OURS, FLOOR),
        "durable_vs_dcp": ratio("durable_s", OURS, DCP),
        "restore_vs_floor": ratio("load_s", OURS, FLOOR),
        "restore_vs_dcp": ratio("load_s", OURS, DCP),
        "extra_memory_save": ours.get("extra_save"),
        "extra_memory_restore": ours.get("extra_restore"),
    }


def _figures(saved: list[Found], restored: list[Found], floor: bool) -> Found:
    saves = [each for process in saved for each in process["saves"]]
    state = saved[0]["state_bytes"]
    stall = median(each["stall"] for each in saves)
    alone = [each["durable"] for each in saves if not each["beside"]]
    losses = [each["lost"] for each in saves if each["beside"]]
    found: Found = {
        "stall_s": round(stall, 4),
        "durable_s": round(median(alone), 3),
        "durable_beside_s": round(median(each["durable"] for each in saves if each["beside"]), 3),
        "load_s": round(median(each["load_s"] for each in restored), 3),
        "first_step_s": round(median(each["first_step_s"] for each in restored), 2),
        "extra_save": round(median(each["extra_bytes"] for each in saved) / state, 2),
        "extra_restore": round(median(each["extra_bytes"] for each in restored) / state, 2),
        "stalled_share": round(max(stall, 0.0) / EVERY_S, 4),
        "lost_share": [round(value / EVERY_S, 3) for value in (min(losses), median(losses), max(losses))],
        "step_s": round(median(each["step_s"] for each in saved), 3),
        "state_gb": round(state / 1e9, 3),
    }
    if floor:  # the fastest client is the floor, whatever the others needed in the same save
        clients = {name: median(t for each in saved for t in each["clients"][name]) for name in saved[0]["clients"]}
        fastest = min(clients, key=lambda name: clients[name])
        found.update(durable_s=round(stall + clients[fastest], 3), fastest=fastest)
        found.update(durable_beside_s=None, lost_share=None, extra_save=None)  # of one client it would be 1.0
    return found


def _emergency(found: Found) -> Found:
    if not found:
        return {}
    return {
        "emergency_decided_ms": round(1000 * found["decided_s"], 1),
        "emergency_durable_s": round(found["durable_s"], 3),
        "emergency_vs_normal": round(found["durable_s"] / found["normal_durable_s"], 2),
        "emergency_extra_memory": round(found["extra_bytes"] / found["state_bytes"], 2),
    }


def _frozen(found: Found) -> Found:
    if not found:
        return {}
    later = found["received_bytes"][1:]
    return {
        "frozen_uploaded_share": round(max(later) / found["state_bytes"], 4),
        "frozen_changed_share": round(found["trained_bytes"] / found["state_bytes"], 4),
    }


def _share(outcomes: Iterable[bool]) -> float | None:
    listed = list(outcomes)
    return round(sum(listed) / len(listed), 3) if listed else None
