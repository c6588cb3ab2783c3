"""The function for our own events and for runs that are due: `handlers.runs.handler`."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.batch import serve
from handlers.kinds import FROM_US
from handlers.wiring import observed, wired


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Answer a batch of the queue in front of this function."""
    wires = wired()
    return observed(wires, lambda: serve(event, context, wires.plane, FROM_US), event, context)
