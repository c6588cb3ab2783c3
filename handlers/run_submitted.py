"""A run's row has been written; and the sweep's word that a run is due. Both bring no fact."""

from __future__ import annotations

from handlers.events import Envelope, RunDetail
from handlers.signals import Arrival, Signal

KIND = "Run Submitted"


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """Which run to look at."""
    return Signal(envelope.kind, run_id=RunDetail.model_validate(envelope.detail).run_id)
