"""Frozen dataclasses to JSON values and back, driven by their annotations.

Datetimes travel as ISO 8601 in UTC, timedeltas as seconds, enums by value, tuples as lists. Keys
that this version does not know are ignored on the way in: a newer writer may have added them.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar

from spotrelay.core.errors import InvalidInput

T = TypeVar("T")
Reader = Callable[[Any, str], Any]  # of the data and where it stands

PLAIN = frozenset((str, int, float, bool, type(None)))  # written as they are


def to_json(value: Any) -> Any:
    """The JSON form of a value made of dataclasses, enums, times, tuples, dicts and scalars."""
    kind: Any = type(value)
    return _writer(kind)(value)


@cache
def _writer(kind: Any) -> Callable[[Any], Any]:
    """How values of this class are written; found once, since a row has hundreds of them."""
    if dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
        return lambda value: {name: _written(getattr(value, name)) for name in names}
    if issubclass(kind, Enum):
        return lambda value: value.value
    if issubclass(kind, datetime):
        return lambda value: value.astimezone(UTC).isoformat()
    if issubclass(kind, timedelta):
        return lambda value: value.total_seconds()
    if issubclass(kind, (tuple, list)):
        return lambda value: [_written(item) for item in value]
    if issubclass(kind, dict):
        return lambda value: {str(key): _written(item) for key, item in value.items()}
    return lambda value: value


def _written(value: Any) -> Any:
    kind: Any = type(value)
    return value if kind in PLAIN else _writer(kind)(value)


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """Build a `kind` from what `to_json` made of one.

    Raises:
        InvalidInput: a value has the wrong type or a required key is missing; names the path.
    """
    return typing.cast(T, _read(kind, data, where or getattr(kind, "__name__", str(kind))))


def strict_json(text: bytes | bytearray | str) -> Any:
    """What a JSON text of our own says, where two readers could not understand it in two ways.

    Raises:
        ValueError: it is no JSON, repeats a key, is nested too deeply, or has a number that is none.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it repeats a key")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One reason why a value is not of its kind."""

    path: str
    text: str  # names the path
    kind: Any  # what was expected there; None for a key that no version knows
    value: Any = None


def mistakes(kind: Any, data: Any, where: str) -> list[Mistake]:
    """Every reason why `from_json` would refuse, where it names the first, and every key that it would ignore."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return [] if data is None else mistakes(_inner(kind), data, where)
    if origin is tuple and isinstance(data, (list, tuple)):
        item = typing.get_args(kind)[0]
        return [each for i, entry in enumerate(data) for each in mistakes(item, entry, f"{where}[{i}]")]
    if origin is dict and isinstance(data, dict):
        item = typing.get_args(kind)[1]
        return [each for key, entry in data.items() for each in mistakes(item, entry, f"{where}.{key}")]
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        return _mistakes_in_fields(typing.cast(type, kind), data, where)
    try:
        _read(kind, data, where)
    except InvalidInput as error:
        return [Mistake(where, str(error), kind, data)]
    return []


def _mistakes_in_fields(kind: type, data: dict[Any, Any], where: str) -> list[Mistake]:
    hints = field_types(kind)
    found = [Mistake(f"{where}.{key}", f"{where}.{key}: unknown", None) for key in data if key not in hints]
    for field in dataclasses.fields(kind):
        path = f"{where}.{field.name}"
        if field.name in data:
            found += mistakes(hints[field.name], data[field.name], path)
        elif _required(field):
            found.append(Mistake(path, f"{path}: missing", hints[field.name]))
    return found


@cache
def field_types(kind: type) -> dict[str, Any]:
    """Each field's resolved annotation."""
    return typing.get_type_hints(kind)


def _read(kind: Any, data: Any, where: str) -> Any:
    return _reader(kind)(data, where)


@cache
def _reader(kind: Any) -> Reader:
    """How values of this kind are read; found once, as for writing."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return lambda data, where: data
    if origin in (typing.Union, types.UnionType):
        inner = _reader(_inner(kind))
        return lambda data, where: None if data is None else inner(data, where)
    if origin is tuple:
        return partial(_read_tuple, _reader(typing.get_args(kind)[0]))
    if origin is dict:
        return partial(_read_dict, _reader(typing.get_args(kind)[1]))
    if dataclasses.is_dataclass(kind):
        return partial(_read_dataclass, typing.cast(type, kind))
    if kind in (str, bool):
        return partial(_read_exactly, kind)
    return partial(_read_scalar, kind)


def _inner(optional: Any) -> Any:
    return next(arg for arg in typing.get_args(optional) if arg is not type(None))


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _read_tuple(item: Reader, data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise InvalidInput(f"{where}: a list was expected, not {data!r}")
    return tuple([item(entry, f"{where}[{i}]") for i, entry in enumerate(data)])


def _read_dict(item: Reader, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidInput(f"{where}: a mapping was expected, not {data!r}")
    return {str(key): item(entry, f"{where}.{key}") for key, entry in data.items()}


def _read_dataclass(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InvalidInput(f"{where}: a mapping was expected, not {data!r}")
    values: dict[str, Any] = {}
    for name, reader, required in _field_readers(kind):
        if name in data:
            values[name] = reader(data[name], f"{where}.{name}")
        elif required:
            raise InvalidInput(f"{where}.{name}: missing")
    return kind(**values)


@cache
def _field_readers(kind: type) -> tuple[tuple[str, Reader, bool], ...]:
    """Each field's name, how it is read, and whether it must be there."""
    hints = field_types(kind)
    return tuple((f.name, _reader(hints[f.name]), _required(f)) for f in dataclasses.fields(kind))


def _read_exactly(kind: type, data: Any, where: str) -> Any:
    return data if type(data) is kind else _read_scalar(kind, data, where)


def _read_scalar(kind: Any, data: Any, where: str) -> Any:
    try:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind(data)
        if kind is datetime:
            return datetime.fromisoformat(data).astimezone(UTC)
        if kind is timedelta:
            return timedelta(seconds=data)
        if kind is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{where}: {data!r} is not {_choice(kind)}") from error
    if not isinstance(data, kind) or (kind is not bool and isinstance(data, bool)):
        raise InvalidInput(f"{where}: {data!r} is not {_article(kind)}")
    return data


def _choice(kind: Any) -> str:
    if issubclass(kind, Enum):
        return "one of " + ", ".join(str(each.value) for each in kind)
    return _article(kind)


def _article(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", timedelta: "a duration"}
    return names.get(kind, f"a {getattr(kind, '__name__', kind)}")
