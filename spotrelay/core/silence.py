"""Silence is counted over successful looks alone; see "Silence is not death" in docs/protocol.md."""

from __future__ import annotations

from datetime import datetime, timedelta

from spotrelay.core.clockwork import OBSERVATIONS
from spotrelay.core.run import Attempt, Run, silence_of


def is_silent(run: Run, attempt: Attempt, node: int, now: datetime, bound: timedelta) -> bool:
    """Whether a machine's heartbeat was seen unchanged often enough, over at least this long."""
    s = silence_of(run, attempt.generation, node)
    return s is not None and s.looks >= OBSERVATIONS and now - s.since >= bound
