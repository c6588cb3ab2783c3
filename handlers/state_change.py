"""A machine went into another state."""

from __future__ import annotations

from pydantic import StrictStr

from handlers.events import Envelope, InstanceDetail
from handlers.signals import Arrival, Signal
from spotrelay.core.notice import InstanceState, StateChange

KIND = "EC2 Instance State-change Notification"
STATES = {state.value: state for state in InstanceState if state is not InstanceState.GONE}


class Changed(InstanceDetail):
    """The detail of the notification."""

    state: StrictStr


def translate(envelope: Envelope, arrival: Arrival) -> Signal | None:
    """The change, for its machine; None for a state that EC2 did not have when this was written."""
    detail = Changed.model_validate(envelope.detail)
    state = STATES.get(detail.state)
    if state is None:
        return None
    return Signal(KIND, (StateChange(detail.instance_id, state),), instance_id=detail.instance_id)
