"""Trying again: jittered, bounded by what the caller says, and cancelled at once when it must be."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from spotrelay.core.errors import Contention, OutcomeUnknown, Unavailable

T = TypeVar("T")

JITTER = random.Random()  # of our own: the generators of the script must not notice us
FIRST_S = 0.2  # before the second try, at most
MOST_S = 30.0  # between two tries, at most


class Cancelled(Exception):
    """The work is no longer wanted. Leave it as it is."""


class Cancel(Protocol):
    """Waits, and says whether to give up."""

    def wait(self, timeout: float) -> bool:
        """Return True as soon as the work is no longer wanted, False when the time has passed."""
        ...


def persevere(
    call: Callable[[], T],
    cancel: Cancel,
    scale: float = 1.0,
    within_s: float | None = None,
    on_failure: Callable[[Exception], None] = lambda error: None,
) -> T:
    """What `call` returns in the end. It has to be safe to repeat after an unknown outcome.

    Args:
        scale: of a demo's clock: shortens the longest wait.
        within_s: give up after this time, raising the last failure; None for never.

    Raises:
        Cancelled: `cancel` said so while waiting for the next try.
    """
    begun = time.monotonic()
    wait = FIRST_S
    while True:
        try:
            return call()
        except (Unavailable, Contention, OutcomeUnknown) as error:
            on_failure(error)
            if within_s is not None and time.monotonic() - begun > within_s:
                raise
        if cancel.wait(wait * JITTER.uniform(0.5, 1.0)):
            raise Cancelled
        wait = min(wait * 2, max(MOST_S * scale, FIRST_S))
