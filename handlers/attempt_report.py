"""An attempt has come further, or its program has ended.

What it says is in the run's live items already, which are read with the run; the event only says
that it is worth looking now.
"""

from __future__ import annotations

from handlers.events import Envelope, RunDetail
from handlers.signals import Arrival, Signal

KIND = "Attempt Reported"


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """Which run to look at."""
    return Signal(KIND, run_id=RunDetail.model_validate(envelope.detail).run_id)
