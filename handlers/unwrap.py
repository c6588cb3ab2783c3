"""From the bytes of a message to the JSON objects inside it, through whatever wraps them.

An event may arrive bare, in the body of an SQS record, in an SNS notification inside that, in a
list of records, or as a JSON text inside a JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from spotrelay.core.errors import InvalidInput

DEEPEST = 12  # wrappings; real ones have three


def unwrap(raw: Any) -> Iterator[dict[str, Any]]:
    """Every innermost object in a message, in order.

    Raises:
        InvalidInput: something in it is no JSON, repeats a key, or is no object at the bottom.
    """
    yield from _unwrap(raw, DEEPEST)


def message_bytes(raw: Any) -> bytes:
    """The bytes of a message as they came, or the JSON of one that came parsed."""
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, str):
        return raw.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(raw, default=repr).encode()
    except (ValueError, RecursionError):
        return ascii(type(raw)).encode()


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text, read strictly: a repeated key or a NaN is a mistake, not a choice.

    Raises:
        InvalidInput: it is no such text.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {str(error) or type(error).__name__}") from error


def _unwrap(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        raise InvalidInput(f"wrapped more than {DEEPEST} times")
    if isinstance(value, (str, bytes)):
        yield from _unwrap(read_json(value), depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _unwrap(item, depth - 1)
    elif isinstance(value, dict):
        inner = _inside(value)
        if inner is None:
            yield value
        else:
            yield from _unwrap(inner, depth - 1)
    else:
        raise InvalidInput(f"an event is a JSON object, this is {ascii(value)[:80]}")


def _inside(value: dict[str, Any]) -> Any:
    """What a known wrapper holds; None when this object wraps nothing."""
    if "detail-type" in value:
        return None
    if isinstance(value.get("Records"), list):
        return value["Records"]
    if isinstance(value.get("Sns"), dict):
        return value["Sns"].get("Message", "")
    if value.get("Type") == "Notification" and isinstance(value.get("Message"), str):
        return value["Message"]
    for key, beside in (("body", "messageId"), ("Body", "MessageId")):
        if key in value and beside in value:
            return value[key] if isinstance(value[key], (str, dict, list)) else ""
    return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!a} is there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
