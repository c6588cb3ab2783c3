"""The function for EC2's events: `handlers.interruptions.handler`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.batch import serve
from handlers.kinds import FROM_EC2
from handlers.wiring import observed, wired


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Answer a batch of the queue in front of this function. It deletes nothing: a notice may be waiting."""
    wires = wired()
    plane = replace(wires.plane, collects=False)
    return observed(wires, lambda: serve(event, context, plane, FROM_EC2), event, context)
