"""`make mutants`: break each promise on purpose, and see its test turn red.

Each `*.patch` beside this file removes the rule behind one promise. Its first lines say which
promise that is and which test has to fail. The patch is applied to a copy of the tree; what is
checked out is never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("spotrelay", "handlers", "trainer_shim", "infra", "tests", "examples", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One patch, with what its head says."""

    path: Path
    promise: str
    test: str

    @property
    def name(self) -> str:
        return self.path.stem


def mutants() -> list[Mutant]:
    """Every patch, in the order of the promises."""
    return [_read(path) for path in sorted(HERE.glob("*.patch"))]


def _read(path: Path) -> Mutant:
    head = dict(
        line.split(": ", 1) for line in path.read_text().splitlines() if line.startswith(("Promise: ", "Test: "))
    )
    return Mutant(path, head["Promise"], head["Test"])


def applies(mutant: Mutant, tree: Path, really: bool = False) -> bool:
    """Whether the patch fits this tree; with `really` it is applied as well."""
    check = [] if really else ["--check"]
    command = ["git", "apply", *check, str(mutant.path)]
    return subprocess.run(command, cwd=tree, capture_output=True, check=False).returncode == 0


def is_caught(mutant: Mutant) -> bool:
    """Whether the test that the patch names fails once the rule is gone."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "_assembly"))
            elif source.exists():
                shutil.copy2(source, tree / name)
        if not applies(mutant, tree, really=True):
            raise SystemExit(f"{mutant.path.name} does not fit the code any more: make it anew")
        environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "SPOTRELAY_SHRINK": "no"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutant.path.name}: its test did not run at all:\n{done.stdout[-2000:]}")
        return done.returncode == 1


def main() -> int:
    """Apply them one by one; status 1 if any of them went unnoticed."""
    results = {}
    for mutant in mutants():
        results[mutant.name] = is_caught(mutant)
        print(f"{'red, as it should be' if results[mutant.name] else 'NOT NOTICED':22}{mutant.name}: {mutant.promise}")
    print(json.dumps({"mutants": len(results), "caught": sum(results.values())}))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
