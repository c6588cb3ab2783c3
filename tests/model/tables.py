"""The code's tables of moves in the model's language: `python -m tests.model.tables` writes `moves.pml` anew."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path

from spotrelay.core.run import ATTEMPT_MOVES, RUN_MOVES, AttemptState, RunStatus

MOVES = Path(__file__).with_name("moves.pml")
HEAD = "/* Made from spotrelay/core/run.py by `make docs`: do not edit. */\n"


def moves() -> str:
    """What `moves.pml` has to say."""
    return (
        HEAD
        + "\n#define A_NONE 0\n"
        + _numbers("A", AttemptState)
        + _table("ATTEMPT_MOVE", "A", ATTEMPT_MOVES)
        + "\n"
        + _numbers("R", RunStatus)
        + _table("RUN_MOVE", "R", RUN_MOVES)
    )


def _numbers(prefix: str, states: Iterable[Enum]) -> str:
    return "".join(f"#define {_name(prefix, s)} {number}\n" for number, s in enumerate(states, start=1))


def _table(name: str, prefix: str, table: Mapping[tuple[Enum, Enum], str]) -> str:
    legal = (f"(a == {_name(prefix, a)} && b == {_name(prefix, b)})" for a, b in table)
    return f"\n#define {name}(a, b) ( \\\n    " + " || \\\n    ".join(legal) + ")\n"


def _name(prefix: str, state: Enum) -> str:
    return f"{prefix}_{state.name}"


if __name__ == "__main__":
    MOVES.write_text(moves())
    sys.stdout.write(f"wrote {MOVES}\n")
