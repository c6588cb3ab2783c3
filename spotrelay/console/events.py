"""`spotrelay events`: the timeline of a run, each line with its reason; `--follow` until the run ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

from spotrelay.console.wiring import Services
from spotrelay.core.run import Entry

POLL_S = 2.0


def entries(services: Services, run_id: str, follow: bool, pause_s: float = POLL_S) -> Iterator[Entry]:
    """The lines so far, oldest first; with `follow` every later one too, until the run has ended.

    Raises:
        UnknownRun: there is none.
    """
    shown = 0
    while True:
        run = services.runs.load(run_id)  # before the timeline: its last lines are written with the final status
        lines = services.runs.timeline(run_id)
        yield from lines[shown:]
        shown = len(lines)
        if not follow or run.status.final:
            return
        time.sleep(pause_s)
