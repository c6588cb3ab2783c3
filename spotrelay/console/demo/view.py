"""What a watcher of the demo sees: a live screen on a terminal, plain lines in a pipe, JSON lines for machines."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any, Protocol

from spotrelay.console.output import as_json, entry_line, tell
from spotrelay.core.run import Entry, Run

LINES = 14  # of the timeline on the live screen
PROGRESS_EVERY = 10.0  # seconds between progress lines where nothing is live


class View(Protocol):
    """Where the demo tells what happens."""

    def scene(self, text: str) -> None:
        """Something that the demo does, or waits for."""

    def entry(self, entry: Entry) -> None:
        """A line of the run's timeline."""

    def progress(self, run: Run, reference_step: int) -> None:
        """How the run stands; called often."""

    def close(self) -> None:
        """Nothing more comes."""


class JsonView:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last: dict[str, Any] = {}

    def scene(self, text: str) -> None:
        """A line of kind `demo`."""
        self._say("demo", text=text)

    def entry(self, entry: Entry) -> None:
        """A line of kind `entry`."""
        self._say("entry", entry=entry)

    def progress(self, run: Run, reference_step: int) -> None:
        """A line of kind `progress`, when something has changed."""
        now = {**standing(run), "reference_step": reference_step}
        if now != self._last:
            self._last = now
            self._say("progress", **now)

    def close(self) -> None:
        """Nothing to do."""

    def _say(self, kind: str, **values: Any) -> None:
        tell(as_json({"kind": kind, "t_s": round(time.monotonic() - self._started, 2), **values}))


class PlainView:
    """Lines, as they come."""

    def __init__(self) -> None:
        self._next = 0.0

    def scene(self, text: str) -> None:
        """A line that stands out."""
        tell(f"== {text}")

    def entry(self, entry: Entry) -> None:
        """A line of the timeline."""
        tell(entry_line(entry))

    def progress(self, run: Run, reference_step: int) -> None:
        """A line now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_EVERY
            tell(f"   {standing_line(run)}; uninterrupted run at step {reference_step}")

    def close(self) -> None:
        """Nothing to do."""


class LiveView:
    """A screen that is drawn again and again, with what happened above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._lines: deque[str] = deque(maxlen=LINES)
        self._scene = ""
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._live.start()

    def scene(self, text: str) -> None:
        """Kept above the screen for good, and as its title."""
        self._scene = text
        self._live.console.print(f"[bold cyan]== {_plain(text)}[/]")

    def entry(self, entry: Entry) -> None:
        """Into the timeline; what will not scroll back is printed above."""
        self._lines.append(entry_line(entry))
        self._live.console.print(_plain(entry_line(entry)), highlight=False, style="dim")

    def progress(self, run: Run, reference_step: int) -> None:
        """Draw."""
        self._live.update(_screen(run, reference_step, self._scene))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def view_for(json: bool) -> View:
    """The view that suits where the output goes."""
    if json:
        return JsonView()
    return LiveView() if sys.stdout.isatty() else PlainView()


class Shown:
    """Closes a view, whatever happens."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __enter__(self) -> View:
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()


def standing(run: Run) -> dict[str, Any]:
    """How a run stands, in stable keys."""
    beat = max(run.heartbeats, key=lambda h: (h.step, h.generation), default=None)
    newest = run.checkpoints[0] if run.checkpoints else None
    current = run.current
    return {
        "status": run.status.value,
        "generation": current.generation if current else 0,
        "pool": str(current.pool) if current and current.pool else None,
        "step": max([beat.step if beat else 0, *(a.last_step for a in run.attempts)]),
        "total": beat.total if beat else 0,
        "loss": beat.loss if beat else None,
        "checkpoint": str(newest.id) if newest else None,
        "checkpoint_state": newest.state if newest else None,
    }


def standing_line(run: Run) -> str:
    """How a run stands, in one line."""
    s = standing(run)
    loss = f", loss {s['loss']:.4f}" if s["loss"] is not None else ""
    point = f", checkpoint {s['checkpoint']} {s['checkpoint_state']}" if s["checkpoint"] else ""
    where = f"attempt {s['generation']} on {s['pool'] or 'no machine yet'}"
    return f"{s['status']}: step {s['step']} of {s['total'] or '?'}{loss}; {where}{point}"


def _screen(run: Run, reference_step: int, scene: str) -> Any:
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    s = standing(run)
    total = s["total"] or 1
    bars = Table.grid(padding=(0, 1))
    for name, step in (("the run", s["step"]), ("uninterrupted", reference_step)):
        bars.add_row(name, ProgressBar(total=total, completed=min(step, total), width=50), f"{step} of {total}")
    attempts = Table("attempt", "state", "pool", "from", "to", "ended because", box=None, pad_edge=False)
    for a in run.attempts:
        start = "" if a.resumed_from is None else str(a.resumed_from)
        pool = str(a.pool) if a.pool else ""
        attempts.add_row(str(a.generation), a.state.value, pool, start, str(a.last_step), Text(a.ended_why[:50]))
    points = "   ".join(f"{c.id} step {c.commit.step} {c.state}" for c in run.checkpoints[:4])
    parts: list[Any] = [Text(standing_line(run)), bars, attempts, Text("checkpoints: " + (points or "none yet"))]
    return Panel(Group(*parts), title=_plain(scene[:90]))


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
