"""What the commands print: a table or lines for a person, one JSON value for a script."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from spotrelay.core.codec import to_json
from spotrelay.core.run import Entry


def as_json(value: Any) -> str:
    """One line of JSON; keys keep their order, so that a reader finds them where they were."""
    return json.dumps(to_json(value), ensure_ascii=False)


def tell(text: str) -> None:
    """A line for a person, on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def aside(text: str) -> None:
    """A line for a person that is not the answer: on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table: with rules on a terminal, tab-separated without headings in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            tell("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        grid.add_column(heading)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    Console().print(grid)


def entry_line(entry: Entry) -> str:
    """A line of the timeline."""
    who = f"[{entry.generation}]" if entry.generation is not None else ""
    return f"{entry.at:%H:%M:%S} {who:>4} {entry.kind:<11} {entry.text}"


def ago(then: datetime, now: datetime) -> str:
    """How long ago, in the largest unit that says something."""
    return f"{lasting(now - then)} ago"


def lasting(span: timedelta) -> str:
    """A duration for a person."""
    seconds = max(int(span.total_seconds()), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
