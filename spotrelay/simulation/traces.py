"""Recorded capacity: when a machine could be had in each pool, read from files.

A file is `{"metadata": {"gap_seconds": 195}, "data": [0, 1, …]}`, one probe every gap, and is named
`<zone>_<type>_<count>.json`. All traces of a folder begin at the same moment.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import Pool
from spotrelay.core.spec import Spec

Seconds = float  # since the first probe


@dataclass(frozen=True)
class Trace:
    """One pool's capacity over time."""

    pool: Pool
    length: Seconds
    changes: tuple[Seconds, ...]  # ascending; the pool is up from an even index to the next odd one

    def up_until(self, moment: Seconds) -> Seconds | None:
        """When a machine given at this moment is taken back: `inf` when the trace ends first. None: refused."""
        at = bisect_right(self.changes, moment)
        if at % 2 == 0:
            return None
        return self.changes[at] if at < len(self.changes) else math.inf

    def up_from(self, moment: Seconds) -> Seconds:
        """The first moment, this one or later, at which a machine can be had; `inf` if there is none."""
        at = bisect_right(self.changes, moment)
        if at % 2:
            return moment
        return self.changes[at] if at < len(self.changes) else math.inf

    @property
    def availability(self) -> float:
        """Share of the time in which a machine could be had."""
        ends = (*self.changes, self.length) if len(self.changes) % 2 else self.changes
        return sum(end - start for start, end in zip(ends[::2], ends[1::2], strict=True)) / self.length


def trace_of(pool: Pool, gap: Seconds, data: Iterable[float], nodes: int = 1) -> Trace:
    """The trace in these probes; a value above zero is capacity for a machine, for several it has to count them."""
    changes: list[Seconds] = []
    count = 0
    for up, group in groupby((value > 0 if nodes == 1 else value >= nodes) for value in data):
        if up or changes:
            changes.append(count * gap)
        count += len(list(group))
    return Trace(pool, count * gap, tuple(changes))


def read_traces(folder: Path, spec: Spec) -> tuple[Trace, ...]:
    """The traces below this folder that the spec's pools can be replayed on, in order of their names.

    Traces of instance types that the spec names stand for themselves. If there are none, every
    trace stands for the spec's first type: traces are often named after the GPU.

    Raises:
        InvalidInput: nothing to replay, a file that is no trace, or two traces of one pool.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: there is no such folder of traces")
    files = {path: _named(path) for path in sorted(folder.rglob("*.json"))}
    exact = any(kind in spec.instance_types for _, kind in files.values())
    traces: dict[Pool, Trace] = {}
    most = 0.0  # machines that there ever were at once in a pool
    for path, (zone, kind) in files.items():
        if (exact and kind not in spec.instance_types) or (spec.zones and zone not in spec.zones):
            continue
        pool = Pool(region_of(zone), zone, kind if exact else spec.instance_types[0])
        if pool in traces:
            raise InvalidInput(f"{path}: a second trace for {pool}; name a folder with one of them")
        gap, data = read_probes(path)
        most = max(most, *data)
        traces[pool] = trace_of(pool, gap, data, spec.nodes)
    if not traces:
        wanted = f" for zones {', '.join(spec.zones)}" if spec.zones else ""
        raise InvalidInput(f"{folder}: no traces{wanted}; they are files named <zone>_<type>_<count>.json")
    if spec.nodes > 1 and most < spec.nodes:
        told = f"its probes count {most:g} machines at the most, and nodes asks for {spec.nodes} in one zone at once"
        raise InvalidInput(f"{folder}: {told}; replay a gang on probes that count machines")
    return tuple(traces.values())


def region_of(zone: str) -> str:
    """The region of a zone: its name without the letter at its end."""
    return zone.rstrip("abcdefghijklmnopqrstuvwxyz") if zone[-1:].isalpha() else zone


def _named(path: Path) -> tuple[str, str]:
    zone, _, rest = path.stem.partition("_")
    kind = rest.rpartition("_")[0]
    if not zone or not kind:
        raise InvalidInput(f"{path}: a trace is named <zone>_<type>_<count>.json")
    return zone, kind


def read_probes(path: Path) -> tuple[Seconds, list[float]]:
    """The gap between two probes, and what each found.

    Raises:
        InvalidInput: the file is no trace.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        gap, data = content["metadata"]["gap_seconds"], content["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f'{path}: no trace; {{"metadata": {{"gap_seconds": …}}, "data": […]}} is one') from error
    if not _number(gap) or gap <= 0 or not isinstance(data, list) or not data or not all(_number(v) for v in data):
        raise InvalidInput(f"{path}: gap_seconds above zero and a list of numbers were expected")
    return float(gap), data


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
