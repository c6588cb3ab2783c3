"""Policy condition keys that MiniStack does not fill in, read from the requests: DynamoDB's keys, events' sources.

A statement with a key that the request does not show to us must not apply; so what cannot be read is left out, and
the usual pair of `ForAllValues` and `Null` then refuses.

Source:
    Service Authorization Reference: condition keys of Amazon DynamoDB and of Amazon EventBridge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

KeyNames = Callable[[str, str], list[str]]
"""Table and index (empty for none) → names of its key attributes, partition key first."""

_EQUALS = re.compile(r"([#\w.-]+)\s*=\s*(:\w+)")


def leading_keys(body: bytes, key_names: KeyNames) -> list[str] | None:
    """Partition key values that a DynamoDB request names; None where they cannot be read (a scan, an odd request).

    For a transaction these are the keys of all its items, where AWS looks at one item at a time: stricter here.
    """
    asked = _object(body)
    values: list[str] = []
    for operation in _operations(asked):
        value = _partition_value(operation, key_names)
        if value is None:
            return None
        values.append(value)
    return values or None


def event_context(body: bytes) -> dict[str, Any]:
    """`events:source` and `events:detail-type` of a PutEvents request; one value where all entries agree."""
    entries = [entry for entry in _object(body).get("Entries") or [] if isinstance(entry, dict)]
    context: dict[str, Any] = {}
    for key, name in (("events:source", "Source"), ("events:detail-type", "DetailType")):
        values = sorted({str(entry.get(name, "")) for entry in entries})
        if values:
            context[key] = values[0] if len(values) == 1 else values
    return context


def _operations(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The single-item operations that a request consists of."""
    if "TransactItems" in asked:
        for item in asked["TransactItems"]:
            yield from item.values()
    elif "RequestItems" in asked:
        for table, wanted in asked["RequestItems"].items():
            items = wanted.get("Keys", []) if isinstance(wanted, dict) else _written(wanted)
            yield from ({"TableName": table, "Key": item} for item in items)
    elif "TableName" in asked:
        yield asked


def _written(requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for request in requests:
        yield (request.get("PutRequest") or {}).get("Item") or (request.get("DeleteRequest") or {}).get("Key") or {}


def _partition_value(operation: dict[str, Any], key_names: KeyNames) -> str | None:
    names = key_names(str(operation.get("TableName", "")), str(operation.get("IndexName") or ""))
    if not names:
        return None
    item = operation.get("Key") or operation.get("Item")
    if item is not None:
        return _plain(item.get(names[0]))
    aliases = operation.get("ExpressionAttributeNames") or {}
    values = operation.get("ExpressionAttributeValues") or {}
    for name, value in _EQUALS.findall(str(operation.get("KeyConditionExpression") or "")):
        if aliases.get(name, name) == names[0]:
            return _plain(values.get(value))
    return None


def _plain(value: Any) -> str | None:
    return str(next(iter(value.values()))) if isinstance(value, dict) and value else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
