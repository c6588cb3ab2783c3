"""Recorded capacity as a run sees it: one spell after another in which all its machines were there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from spotrelay.core.errors import InvalidInput
from spotrelay.simulation.traces import Seconds, read_probes


@dataclass(frozen=True)
class Spell:
    """An uninterrupted stretch of capacity."""

    seconds: Seconds
    lost: bool  # it ended by a loss; False: the trace ended first


def spells_of(gap: Seconds, data: list[float]) -> tuple[Spell, ...]:
    """The spells in these probes. A run needs as many machines as the trace has at its best."""
    wanted = max(data)
    found: list[Spell] = []
    seen = 0
    for up, group in groupby(wanted > 0 and value >= wanted for value in data):
        length = len(list(group))
        seen += length
        if up:
            found.append(Spell(length * gap, seen < len(data)))
    return tuple(found)


def read_spells(folder: Path) -> dict[str, tuple[Spell, ...]]:
    """The spells of every trace below this folder, by its path without the ending.

    Raises:
        InvalidInput: there is no trace, a file is none, or nothing was ever to be had in it.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: there is no such folder of traces")
    found: dict[str, tuple[Spell, ...]] = {}
    for path in sorted(folder.rglob("*.json")):
        spells = spells_of(*read_probes(path))
        if spells:
            found[path.relative_to(folder).with_suffix("").as_posix()] = spells
    if not found:
        raise InvalidInput(f'{folder}: no trace with capacity in it; {{"metadata": {{"gap_seconds": …}}, "data": […]}}')
    return found
