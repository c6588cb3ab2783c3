"""A machine is at elevated risk. Never a kill, whatever else the event carries."""

from __future__ import annotations

from handlers.events import Envelope, InstanceDetail
from handlers.signals import Arrival, Signal
from spotrelay.core.notice import RebalanceRecommendation

KIND = "EC2 Instance Rebalance Recommendation"


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """The recommendation, for its machine."""
    detail = InstanceDetail.model_validate(envelope.detail)
    return Signal(KIND, (RebalanceRecommendation(detail.instance_id),), instance_id=detail.instance_id)
