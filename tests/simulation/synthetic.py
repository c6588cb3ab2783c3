"""Capacity made up for the tests: pools of different character with heavy-tailed spells."""

from __future__ import annotations

import json
import random
from pathlib import Path

GAP_S = 195
DAY = 24 * 3600 // GAP_S
PLACES = ("us-east-1a", "us-east-1b", "us-east-1c", "eu-west-1a", "eu-west-1b", "ap-south-1a", "ap-south-1b")


def spells(dice: random.Random, probes: int, up_hours: float, down_hours: float) -> list[int]:
    """Probes of one pool: Pareto-distributed spells, most of them short and a few very long."""
    data: list[int] = []
    up = dice.random() < up_hours / (up_hours + down_hours)
    while len(data) < probes:
        hours = dice.paretovariate(1.3) * (up_hours if up else down_hours) * 0.23
        data += [int(up)] * max(1, round(hours * 3600 / GAP_S))
        up = not up
    return data[:probes]


def world(seed: int, days: int = 30) -> dict[str, list[int]]:
    """Probes by zone. One region is scarce, one fair, one plentiful."""
    dice = random.Random(seed)
    character = {"us-east-1": (0.8, 1.2), "eu-west-1": (3.0, 1.2), "ap-south-1": (9.0, 1.0)}
    return {zone: spells(dice, days * DAY, *character[zone[:-1]]) for zone in PLACES}


def mixed(seed: int, long_hours: float, days: int = 40) -> list[int]:
    """Probes of a pool in which most machines go within half an hour and the others last."""
    dice = random.Random(seed)
    data: list[int] = []
    while len(data) < days * DAY:
        hours = dice.expovariate(1 / 0.4) if dice.random() < 0.6 else dice.expovariate(1 / long_hours)
        data += [1] * max(1, round(hours * 3600 / GAP_S)) + [0]
    return data[: days * DAY]


def write(folder: Path, data: dict[str, list[int]], kind: str = "v100", gap: float = GAP_S) -> Path:
    """The folder with one file for each zone."""
    folder.mkdir(parents=True, exist_ok=True)
    for zone, probes in data.items():
        content = {"metadata": {"gap_seconds": gap}, "data": probes}
        (folder / f"{zone}_{kind}_1.json").write_text(json.dumps(content))
    return folder
