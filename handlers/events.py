"""The edge: raw messages in, signals out. Raw dictionaries go no further than this file.

A kind of event that nobody here reads becomes None, a malformed one becomes `Quarantined`;
neither is ever an exception, because an exception would bring the same message back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, ValidationError

from handlers.signals import Arrival, Quarantined, Signal
from handlers.unwrap import message_bytes, read_json, unwrap
from spotrelay.core.errors import InvalidInput
from spotrelay.core.notice import checked_instance_id
from spotrelay.core.spec import checked_run_id

Parsed = Signal | Quarantined | None
OURS = "spotrelay"  # source of our own events
RUN_DUE = "Run Due"  # the kind of a bare {"run_id": …}, which the sweep sends

# Keys under which messages that are no EventBridge events say what they are.
OTHER_KINDS = ("Event", "LifecycleTransition", "eventName", "LifecycleHookName")
SNS_KINDS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


def _text_or_nothing(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Any:
    return read_json(value) if isinstance(value, str) else value


class Envelope(BaseModel):
    """An EventBridge event, as far as we use it. The ARNs in `resources` are never looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: StrictStr
    kind: StrictStr = Field(validation_alias=AliasChoices("detail-type", "detail_type"))
    detail: Annotated[dict[str, Any], BeforeValidator(_object)]
    time: Annotated[str, BeforeValidator(_text_or_nothing)] = ""


InstanceId = Annotated[str, BeforeValidator(checked_instance_id)]


def _run_id(value: Any) -> str:
    if not isinstance(value, str) or value != value.strip():
        raise InvalidInput(f"{value!r} is no run id")
    return checked_run_id(value)


RunId = Annotated[str, BeforeValidator(_run_id)]


class Detail(BaseModel):
    """Base of every event's detail: extra keys are ignored, keys may be written with - or _."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class InstanceDetail(Detail):
    """About one machine. Its id comes from here and nowhere else."""

    instance_id: InstanceId = Field(validation_alias=AliasChoices("instance-id", "instance_id"))


class RunDetail(Detail):
    """About one run."""

    run_id: RunId


Translate = Callable[[Envelope, Arrival], Signal | None]
Kinds = Mapping[tuple[str, str], Translate]  # (source, detail-type) to what reads it


def parse(raw: Any, arrival: Arrival, kinds: Kinds) -> list[Parsed]:
    """Everything in one message, in order. Never raises, whatever `raw` is.

    A message that is malformed as a whole gives one `Quarantined`; in one that carries several
    events, each is judged alone.
    """
    try:
        found = list(unwrap(raw))
    except InvalidInput as error:
        return [_quarantined(error, raw)]
    if not found:
        return [_quarantined(InvalidInput("there is no event in it"), raw)]
    return [_parse_one(value, raw, arrival, kinds) for value in found]


def _parse_one(value: dict[str, Any], raw: Any, arrival: Arrival, kinds: Kinds) -> Parsed:
    if _is_of_another_kind(value):
        return None
    try:
        envelope = Envelope.model_validate(_with_envelope(value))
        translate = kinds.get((envelope.source, envelope.kind))
        return translate(envelope, arrival) if translate else None
    except (InvalidInput, ValidationError) as error:
        return _quarantined(error, raw)
    except RecursionError:
        return _quarantined(InvalidInput("nested too deeply"), raw)


def _with_envelope(value: dict[str, Any]) -> dict[str, Any]:
    if set(value) == {"run_id"}:
        return {"source": OURS, "detail-type": RUN_DUE, "detail": value}
    return value


def _is_of_another_kind(value: dict[str, Any]) -> bool:
    if "detail-type" in value or "detail_type" in value:
        return False
    return value.get("Type") in SNS_KINDS or any(isinstance(value.get(key), str) for key in OTHER_KINDS)


def _quarantined(error: InvalidInput | ValidationError, raw: Any) -> Quarantined:
    if isinstance(error, ValidationError):
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
        reason = "; ".join(f"{'.'.join(str(part) for part in m['loc'])}: {m['msg']}" for m in mistakes[:5])
    else:
        reason = str(error)
    return Quarantined(reason.encode("ascii", "backslashreplace").decode()[:500], message_bytes(raw))


def read_time(text: str) -> datetime | None:
    """The time in ISO 8601 or RFC 1123, aware, UTC; None for a placeholder or nonsense."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def deadline(arrival: Arrival, said: str = "", sent: str = "") -> datetime:
    """When the machine goes: as EC2 said, else notice time after the event, else after its arrival.

    Args:
        said: the moment of the interruption itself, where the event carries one.
        sent: the event's own `time`.
    """
    moment = read_time(said)
    if moment is not None and arrival.at - arrival.late <= moment <= arrival.at + arrival.late:
        return moment
    event_time = read_time(sent)
    if event_time is not None and arrival.at - arrival.late <= event_time <= arrival.at + arrival.skew:
        return event_time + arrival.notice
    return arrival.at + arrival.notice
