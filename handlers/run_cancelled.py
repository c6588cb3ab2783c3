"""A person wants a run to end."""

from __future__ import annotations

from pydantic import StrictStr

from handlers.events import Envelope, RunDetail
from handlers.signals import Arrival, Signal
from spotrelay.core.facts import CancelRequested

KIND = "Run Cancel Requested"


class Cancelled(RunDetail):
    """The detail of the request."""

    reason: StrictStr = ""


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """The wish, for its run."""
    detail = Cancelled.model_validate(envelope.detail)
    return Signal(KIND, (CancelRequested(detail.reason or "cancelled by its user"),), run_id=detail.run_id)
