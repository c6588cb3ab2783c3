"""What the documents show of the code, made from the code: `python -m tests.docs.drawings` writes it.

A block between `<!-- made: NAME -->` and `<!-- end -->` belongs to this file; a test compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from spotrelay.core.clockwork import Timings
from spotrelay.core.placement import REMEMBERED
from spotrelay.core.run import ATTEMPT_MOVES, FINAL, RUN_MOVES
from spotrelay.localcloud.patches import markdown

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def run_moves() -> str:
    """The table of a run's moves as a drawing."""
    ends = "".join(f"    {status.value} --> [*]\n" for status in sorted(FINAL, key=lambda s: s.value))
    return _drawing("waiting", RUN_MOVES) + ends + "```\n"


def attempt_moves() -> str:
    """The table of an attempt's moves as a drawing."""
    return _drawing("reserved", ATTEMPT_MOVES) + "    ended --> [*]\n```\n"


def timings() -> str:
    """Every waiting time of the control plane."""
    lines = (f"| `{name}` | {value.total_seconds():g} |" for name, value in vars(Timings()).items())
    return "| bound | seconds |\n|---|---|\n" + "\n".join(lines) + "\n"


def memories() -> str:
    """How long a refusal keeps us out."""
    lines = (f"| {scope.value} | {lasts.total_seconds():g} |" for scope, lasts in REMEMBERED.items())
    return "| scope of a refusal | seconds |\n|---|---|\n" + "\n".join(lines) + "\n"


def _drawing(start: str, moves: Mapping[tuple[Enum, Enum], str]) -> str:
    arrows = "".join(f"    {a.value} --> {b.value}: {cause}\n" for (a, b), cause in moves.items())
    return f"```mermaid\nstateDiagram-v2\n    [*] --> {start}\n{arrows}"


MADE: dict[str, Callable[[], str]] = {
    "run-moves": run_moves,
    "attempt-moves": attempt_moves,
    "timings": timings,
    "memories": memories,
    "patches": markdown,
}


def renewed(text: str) -> str:
    """The document with every made block as the code has it now."""
    return BLOCK.sub(lambda m: m.group(1) + MADE[m.group("name")]().rstrip("\n") + "\n" + m.group(3), text)


def main() -> int:
    """Write every document anew."""
    for path in sorted(DOCS.glob("*.md")):
        old = path.read_text()
        if (new := renewed(old)) != old:
            path.write_text(new)
            print(f"renewed {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
