"""Silence is counted over successful looks alone; see "Silence is not death" in docs/protocol.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from spotrelay.core.clockwork import OBSERVATIONS
from spotrelay.core.run import Attempt, Progress, Run, Silence, silence_of
from spotrelay.core.site import Site

Standstill = TypeVar("Standstill", Silence, Progress)


def is_silent(run: Run, attempt: Attempt, node: int, now: datetime, bound: timedelta) -> bool:
    """Whether a machine's heartbeat was seen unchanged often enough, over at least this long."""
    s = silence_of(run, attempt.generation, node)
    return s is not None and s.looks >= OBSERVATIONS and now - s.since >= bound


def looked_again(old: Standstill, fresh: Standstill, site: Site) -> Standstill:
    """The count after one more look that found nothing new.

    Args:
        fresh: what a first look at this moment would say.
    """
    since = fresh.last_look - old.last_look
    if since > site.timings.watch * 3:
        return fresh  # we could not look for a while: whoever is watched gets a chance
    if since < site.timings.watch / 2:
        return old  # a burst of events is one look
    return replace(old, last_look=fresh.last_look, looks=old.looks + 1)
