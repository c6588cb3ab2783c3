"""EC2 takes a Spot machine back in two minutes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from handlers.events import Envelope, InstanceDetail, deadline
from handlers.signals import Arrival, Signal
from spotrelay.core.notice import InterruptionNotice, NoticeSource

KIND = "EC2 Spot Instance Interruption Warning"
ACTIONS = frozenset({"terminate", "stop", "hibernate"})


def known_action(value: Any) -> str:
    """What EC2 will do; `terminate`, the usual one, where the event does not say it in EC2's words."""
    return value if isinstance(value, str) and value in ACTIONS else "terminate"


Action = Annotated[str, BeforeValidator(known_action)]


class Warned(InstanceDetail):
    """The detail of the warning."""

    action: Action = Field("terminate", validation_alias=AliasChoices("instance-action", "instance_action"))


def translate(envelope: Envelope, arrival: Arrival) -> Signal:
    """The warning as a notice for its machine."""
    detail = Warned.model_validate(envelope.detail)
    ends = deadline(arrival, sent=envelope.time)
    notice = InterruptionNotice(detail.instance_id, detail.action, ends, NoticeSource.EVENTBRIDGE)
    return Signal(KIND, (notice,), instance_id=detail.instance_id)
