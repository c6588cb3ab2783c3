"""From what invokes a function to `respond`, record by record; one bad record harms no other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.control import ControlPlane
from handlers.events import Kinds, parse
from handlers.quarantine import quarantine
from handlers.respond import respond
from handlers.settings import NOT_OURS, RECEIVED, UNCONCERNED, UNKNOWN_KIND
from handlers.signals import Arrival, Quarantined, Signal
from spotrelay.core.errors import UnknownRun


def serve(event: Any, context: LambdaContext, plane: ControlPlane, kinds: Kinds) -> dict[str, Any]:
    """Answer a batch of SQS records, or one event that was sent to the function directly.

    Returns what SQS needs to know: the records that failed and have to come back.
    """
    if not _is_batch(event):
        read_message(event, Arrival(plane.clock.now(), plane.site.timings.notice), "direct", plane, kinds)
        return {"batchItemFailures": []}

    def record_handler(record: SQSRecord) -> None:  # called by the name of its parameter
        at = arrived(record.raw_event, plane.clock.now())
        message_id = str(record.message_id)
        try:
            read_message(record.body, Arrival(at, plane.site.timings.notice), message_id, plane, kinds)
        except Exception as error:
            trace = traceback.format_exc()
            plane.telemetry.error(
                "record failed, it will come back", message_id=message_id, cause=repr(error), trace=trace
            )
            raise

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    answer = process_partial_response(event, record_handler, processor, context)
    return dict(answer)


def read_message(raw: Any, arrival: Arrival, message_id: str, plane: ControlPlane, kinds: Kinds) -> None:
    """Answer every event in one message. What cannot be read is counted and kept, and is done with."""
    started = time.perf_counter()
    for item in parse(raw, arrival, kinds):
        plane.telemetry.count(RECEIVED)
        if item is None:
            plane.telemetry.count(UNKNOWN_KIND)
        elif isinstance(item, Quarantined):
            quarantine(item, message_id, plane.telemetry)
        else:
            answer(item, plane, started)


def answer(signal: Signal, plane: ControlPlane, started: float) -> None:
    """Find the run that an event is about, and respond. A machine that is not ours costs one read."""
    run_id = signal.run_id
    if signal.instance_id is not None:
        run_id = plane.store.run_of(signal.instance_id)
        if run_id is None:
            plane.telemetry.count(NOT_OURS)
            return
    if run_id is None:
        plane.telemetry.count(UNCONCERNED)
        return
    try:
        respond(plane, run_id, signal.facts, started)
    except UnknownRun:
        plane.telemetry.count(NOT_OURS)
        plane.telemetry.warning("event for a run that does not exist", run_id=run_id, kind=signal.kind)


def arrived(record: Mapping[str, Any], now: datetime) -> datetime:
    """When SQS took the record in, as far as it says so and that is not in the future."""
    attributes = record.get("attributes")
    sent = attributes.get("SentTimestamp") if isinstance(attributes, Mapping) else None
    try:
        return min(now, datetime.fromtimestamp(int(sent) / 1000, UTC)) if sent else now
    except (TypeError, ValueError, OverflowError, OSError):
        return now


def _is_batch(event: Any) -> bool:
    records = event.get("Records") if isinstance(event, Mapping) else None
    return isinstance(records, list) and all(
        isinstance(r, Mapping) and isinstance(r.get("messageId"), str) and isinstance(r.get("body"), str)
        for r in records
    )
