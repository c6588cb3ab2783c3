"""Filters and pages of the Describe calls.

Source:
    EC2 API Reference, "Filtering" (`*` and `?`, any value of a filter, all filters; 200 values a request) and
    "Pagination".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from spotrelay.localcloud.ec2.errors import Ec2Error, invalid_value

_VALUES_A_REQUEST = 200
_DEFAULT_PAGE = 1000
_T = TypeVar("_T")

Values = Callable[[Any], Iterable[str]]
"""From a thing to the values that a filter compares."""


def select(things: Sequence[_T], filters: Sequence[Mapping[str, Any]] | None, known: Mapping[str, Values]) -> list[_T]:
    """The things that pass all filters.

    Raises:
        Ec2Error: a filter that this call does not know, or too many values.
    """
    found = list(things)
    if sum(len(one.get("Values") or []) for one in filters or []) > _VALUES_A_REQUEST:
        raise Ec2Error("FilterLimitExceeded", f"The maximum number of filter values is {_VALUES_A_REQUEST}")
    for one in filters or []:
        name, wanted = str(one.get("Name", "")), [_pattern(str(value)) for value in one.get("Values") or []]
        values = _values(name, known)
        found = [thing for thing in found if any(p.fullmatch(v) for v in values(thing) for p in wanted)]
    return found


def _values(name: str, known: Mapping[str, Values]) -> Values:
    if name in known:
        return known[name]
    if name.startswith("tag:") and "tag:" in known:
        key = name.removeprefix("tag:")
        return lambda thing: [value for tag, value in _pairs(known["tag:"](thing)) if tag == key]
    raise Ec2Error("InvalidParameterValue", f"The filter '{name}' is invalid")


def _pairs(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        key, _, value = text.partition("\0")
        yield key, value


def tag_pairs(tags: Mapping[str, str]) -> list[str]:
    """Tags in the form that the `tag:` filter takes them."""
    return [f"{key}\0{value}" for key, value in tags.items()]


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\\.|\*|\?)", text)
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(p) or re.escape(re.sub(r"\\(.)", r"\1", p)) for p in parts), re.DOTALL)


def page(things: Sequence[_T], request: Mapping[str, Any], fewest: int = 5) -> tuple[list[_T], str | None]:
    """One page, and the token of the next.

    Raises:
        Ec2Error: a page size out of bounds, or a token that is none of ours.
    """
    asked = request.get("MaxResults")
    if asked is not None and not fewest <= int(asked) <= _DEFAULT_PAGE:
        raise invalid_value(asked, "maxResults", f"Expecting a value from {fewest} to {_DEFAULT_PAGE}.")
    start = _offset(request.get("NextToken"))
    end = start + (int(asked) if asked is not None else _DEFAULT_PAGE)
    following = base64.urlsafe_b64encode(f"from:{end}".encode()).decode() if end < len(things) else None
    return list(things[start:end]), following


def _offset(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("from:"))
    except (binascii.Error, ValueError) as why:
        raise Ec2Error("InvalidPaginationToken", "The specified pagination token is not valid") from why
