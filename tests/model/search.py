"""Searches a cell with SPIN: every history within its bounds, or the first that breaks a promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.model.cells import GANG, PROTOCOL, Cell

HERE = Path(__file__).parent
TOOLS = ("spin", "gcc")
MOST_MIB = 1900
MOST_S = 240.0
COMMON = ("-w", f"-DMEMLIM={MOST_MIB}")
HOW = {
    GANG: (("-DSAFETY", "-DCOLLAPSE"), ("-E", "-m20000", "-w23")),
    PROTOCOL: (("-DSAFETY", "-DCOLLAPSE"), ("-E", "-m20000", "-w23")),  # ends are judged by the model itself
    "silence.pml": ((), ("-a", "-f", "-m20000")),  # with weak fairness, for "in the end"
}


class SearchFailed(Exception):
    """The search did not come to its end: neither a proof nor a counterexample."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    problem: str  # the assertion or property that breaks; empty when none does
    states: int
    seconds: float
    moves: frozenset[tuple[int, int]]  # of attempts, by number
    statuses: tuple[tuple[int, ...], ...]  # before, after, outcome, paused, intent, then state and life of each attempt


def missing_tools() -> list[str]:
    """What a search needs and this machine does not have."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def search(cell: Cell, folder: Path) -> Found:
    """Search all of a cell's histories.

    Args:
        folder: an empty one, for what SPIN makes.

    Raises:
        SearchFailed: it was not exhaustive: out of memory, time or depth.
    """
    for source in (*HERE.glob("*.pml"), *HERE.glob("*.h")):
        shutil.copy(source, folder)
    started = time.monotonic()
    compiled, asked = HOW[cell.model]
    _made(["spin", "-a", *cell.defines, cell.model], folder)
    speed = "-O0" if cell.promise else "-O1"  # a seeded bug is found before the compiler has optimised
    _made(["gcc", speed, *COMMON, *compiled, "-o", "pan", "pan.c"], folder)
    told = _made(["./pan", *asked], folder)
    return _read(cell, told, time.monotonic() - started)


def counterexample(cell: Cell, folder: Path) -> str:
    """The history that a search of this cell in this folder has stopped at, step by step."""
    return _made(["spin", "-t", "-p", *cell.defines, cell.model], folder)


def _made(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MOST_S, check=False)
    except subprocess.TimeoutExpired as slow:
        raise SearchFailed(f"{' '.join(command)}: not within {MOST_S:.0f} s") from slow
    if done.returncode != 0:
        raise SearchFailed(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _read(cell: Cell, told: str, seconds: float) -> Found:
    states = re.search(r"^\s*(\d+) states, stored", told, re.MULTILINE)
    errors = re.search(r"errors: (\d+)$", told, re.MULTILINE)
    incomplete = re.search(r"MEMLIM|max search depth too small|Search not completed", told) if errors else None
    problem = re.search(r"^pan:1: (.*?) \(at depth", told, re.MULTILINE)
    if not states or not errors or (incomplete and not problem) or bool(int(errors.group(1))) != bool(problem):
        raise SearchFailed(f"{cell.name}: the search is not exhaustive:\n{told[-3000:]}")
    lines = [line.split() for line in told.splitlines()]
    return Found(
        problem.group(1) if problem else "",
        int(states.group(1)),
        seconds,
        frozenset((int(a), int(b)) for a, b in (line[1:] for line in lines if line[:1] == ["attempt-move"])),
        tuple(_numbers(line[1:]) for line in lines if line[:1] == ["status"]),
    )


def _numbers(words: list[str]) -> tuple[int, ...]:
    return tuple(int(number) for word in words for number in word.split(":"))
