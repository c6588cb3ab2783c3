"""Stored values as JSON text: what every store writes, and how a newer writer's text is met."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar

from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput, UnknownFormat
from spotrelay.core.run import LOADED_BESIDE, Run

T = TypeVar("T")

IN_THE_ROW = tuple(field.name for field in fields(Run) if field.name not in LOADED_BESIDE)
SCHEMA = 1  # of rows and items; a reader refuses a higher one by name
PACKED = 2  # of a row whose text is compressed: an older reader says that it is too old
LONG = 100_000  # characters of a row's text above which it is compressed; most runs stay far below


def encode_value(value: Any) -> str:
    """Canonical JSON text: equal values are equal texts."""
    return _text(to_json(value))


def decode_value(kind: type[T], text: str, what: str) -> T:
    """The value in this text.

    Args:
        what: names the item in an error, such as "lease of run r1".

    Raises:
        UnknownFormat: a newer version wrote it.
        InvalidInput: the text is no such value.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{what} cannot be read: {error}") from error
    if isinstance(data, dict):
        check_schema(data.get("schema", SCHEMA), what)
    return from_json(kind, data, what)


def check_schema(written: Any, what: str, known: int = SCHEMA) -> None:
    """Refuse what a newer version wrote.

    Args:
        known: the highest that this version reads.

    Raises:
        UnknownFormat: `written` is above what this version reads.
    """
    if isinstance(written, int) and written > known:
        raise UnknownFormat(f"{what} has schema {written}, this version of Spotrelay reads up to {known}: upgrade it")


def encode_run(run: Run) -> str:
    """A run's row, without what is read beside it."""
    return _text({name: to_json(getattr(run, name)) for name in IN_THE_ROW})


def decode_run(text: str, run_id: str) -> Run:
    """The run in a row; what is read beside it is empty."""
    return decode_value(Run, text, f"run {run_id}")


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
