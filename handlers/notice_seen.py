"""What an attempt read in its own metadata service, or a person said of its host, as an event of ours."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from handlers.events import Envelope, InstanceId, RunDetail, deadline
from handlers.interruption_warning import Action
from handlers.signals import Arrival, Signal
from spotrelay.core.notice import InterruptionNotice, NoticeSource, RebalanceRecommendation

NOTICE = "Interruption Notice Seen"
REBALANCE = "Rebalance Recommendation Seen"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class Seen(RunDetail):
    """The detail of either event."""

    instance_id: InstanceId = Field(validation_alias=AliasChoices("instance-id", "instance_id"))
    action: Action = Field("terminate", validation_alias=AliasChoices("action", "instance-action"))
    source: Annotated[str, BeforeValidator(_text)] = ""
    deadline: Annotated[str, BeforeValidator(_text)] = ""


def translate_notice(envelope: Envelope, arrival: Arrival) -> Signal:
    """The notice, for its run."""
    detail = Seen.model_validate(envelope.detail)
    ends = deadline(arrival, said=detail.deadline, sent=envelope.time)
    source = NoticeSource.DRAIN if detail.source == NoticeSource.DRAIN.value else NoticeSource.METADATA
    notice = InterruptionNotice(detail.instance_id, detail.action, ends, source)
    return Signal(NOTICE, (notice,), run_id=detail.run_id)


def translate_rebalance(envelope: Envelope, arrival: Arrival) -> Signal:
    """The recommendation, for its run."""
    detail = Seen.model_validate(envelope.detail)
    return Signal(REBALANCE, (RebalanceRecommendation(detail.instance_id),), run_id=detail.run_id)
