"""A checkpoint has been committed: it is compared with S3 now rather than when it is needed.

The commit itself is read with the run, so that the event may be lost or doubled.
"""

from __future__ import annotations

from handlers.events import Envelope, RunDetail
from handlers.signals import Arrival, Signal

KIND = "Checkpoint Committed"


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """Which run to look at."""
    return Signal(KIND, run_id=RunDetail.model_validate(envelope.detail).run_id)
