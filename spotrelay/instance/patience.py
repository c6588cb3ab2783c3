"""Trying again: how long, how often, and what ends it early."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from spotrelay.core.errors import Contention, OutcomeUnknown, Unavailable

T = TypeVar("T")
PASSING = (Unavailable, Contention, OutcomeUnknown)  # errors that a later try may not meet
LONGEST = 32  # times the first pause


class StopAsked(Exception):
    """The machine is being ended. Leave everything as it is."""


def keep_trying(
    action: Callable[[], T],
    within: timedelta,
    first: timedelta,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> T:
    """The result of `action`, tried again with growing pauses while its error is a passing one.

    Args:
        within: from now; after it the last error is raised.
        first: pause after the first failure; each further one is up to twice as long.
        tell: is told once, at the first failure.

    Raises:
        StopAsked: `stop` was set meanwhile.
        SpotrelayError: the action's own, at once when it is no passing one.
    """
    until = time.monotonic() + within.total_seconds()
    pause = first.total_seconds()
    told = False
    while True:
        try:
            return action()
        except PASSING as error:
            if time.monotonic() + pause >= until:
                raise
            if not told:
                tell(f"trying again: {error}")
                told = True
        if stop.wait(pause * random.uniform(0.5, 1)):
            raise StopAsked
        pause = min(pause * 2, first.total_seconds() * LONGEST)
