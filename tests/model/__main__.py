"""`make model`: search every cell, and see that each seeded bug is found. `--tools` only sees to SPIN."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.model.cells import BUGS, CELLS, Cell
from tests.model.search import counterexample, missing_tools, search

PACKAGES = ("spin", "gcc", "libc6-dev")
BY_HAND = "apt-get install spin gcc, or brew install spin; sources: https://spinroot.com"


def main(arguments: list[str]) -> int:
    """Do what was asked; the exit code."""
    if missing_tools():
        _install()
    if missing := missing_tools():
        sys.stderr.write(f"the protocol is NOT model-checked: no {' and no '.join(missing)} here ({BY_HAND})\n")
        return int(arguments != ["--tools"] or bool(os.environ.get("CI")))
    if arguments == ["--tools"]:
        return 0
    return int(any([_bad(cell) for cell in (*CELLS, *BUGS)]))


def _install() -> None:
    """By apt, where we may: on a machine of CI."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(f"{' '.join(command)}: {done.stderr[-500:]}\n")


def _bad(cell: Cell) -> bool:
    """Whether a cell does not say what it has to; told to a person."""
    with tempfile.TemporaryDirectory() as folder:
        found = search(cell, Path(folder))
        bad = bool(found.problem) != bool(cell.promise)
        wanted = f"breaks promise {cell.promise}: {found.problem or 'NOT FOUND'}" if cell.promise else found.problem
        verdict = "FAILED" if bad else "ok    "
        sys.stdout.write(f"{verdict} {cell.name}: {found.states:,} states, {found.seconds:.1f} s. {wanted}\n")
        sys.stdout.flush()
        if bad and found.problem:
            sys.stdout.write(counterexample(cell, Path(folder))[-8000:])
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
