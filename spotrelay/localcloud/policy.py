"""IAM policies: whether these documents let a caller do this to that.

Identity policies only. Whatever this evaluator does not understand counts against the caller: an Allow with an
unknown word does not apply, a Deny with one does.

Source:
    IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements: Condition operators" and "Variables and tags".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Context = Mapping[str, Any]
"""Condition keys of one request to their value, or to a list of values; what is not known is left out."""

_VARIABLES_SINCE = "2012-10-17"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}


@dataclass(frozen=True)
class Decision:
    """The answer, and which statement gave it."""

    allowed: bool
    why: str


class _Unclear(Exception):
    """A statement uses something that this evaluator does not know."""


class _VariableMissing(Exception):
    """A policy variable's key is not part of the request."""


def evaluate(
    policies: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context | None = None
) -> Decision:
    """Whether the policies together allow `action` on `resource`; a Deny beats every Allow.

    Args:
        policies: policy documents, parsed.
        action: `service:Name`.
        resource: an ARN, or `*` for actions that know no resource.
        context: condition keys and their values as strings; lists for keys with several values.
    """
    keys = {name.lower(): value for name, value in (context or {}).items()}
    allowed_by = ""
    for number, policy in enumerate(policies, start=1):
        for name, statement in _statements(policy, number):
            if not _applies(statement, action, resource, keys, str(policy.get("Version", ""))):
                continue
            if statement.get("Effect") != "Allow":
                return Decision(False, f"an explicit deny in {name}")
            allowed_by = allowed_by or name
    if allowed_by:
        return Decision(True, f"allowed by {allowed_by}")
    return Decision(False, f"no identity-based policy allows the {action} action")


def _statements(policy: Mapping[str, Any], number: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    found = policy.get("Statement") or []
    for index, statement in enumerate([found] if isinstance(found, Mapping) else found, start=1):
        yield str(statement.get("Sid") or f"statement {index} of policy {number}"), statement


def _applies(statement: Mapping[str, Any], action: str, resource: str, keys: Context, version: str) -> bool:
    denies = statement.get("Effect") != "Allow"
    try:
        if set(statement) - _ELEMENTS or statement.get("Effect") not in ("Allow", "Deny"):
            raise _Unclear
        expand = _expander(keys, version)
        return (
            _named(statement, "Action", action.lower(), str.lower)
            and _named(statement, "Resource", resource, expand)
            and _conditions_hold(statement.get("Condition") or {}, keys, expand, denies)
        )
    except _Unclear:
        return denies
    except _VariableMissing:
        return False


def _named(statement: Mapping[str, Any], element: str, value: str, prepare: Callable[[str], str]) -> bool:
    """Whether Action or Resource, or its Not form, covers the value."""
    if (element in statement) == (f"Not{element}" in statement):
        raise _Unclear
    patterns = [prepare(str(pattern)) for pattern in _many(statement.get(element, statement.get(f"Not{element}")))]
    return any(glob(pattern, value) for pattern in patterns) == (element in statement)


def _expander(keys: Context, version: str) -> Callable[[str], str]:
    """Puts the request's values in the place of policy variables, as patterns that match nothing but themselves."""

    def value_of(found: re.Match[str]) -> str:
        name, comma, default = found[1].partition(",")
        if name in ("*", "?", "$"):
            return f"[{name}]"
        value = keys.get(name.strip().lower())
        if isinstance(value, str):
            return _literal(value)
        if comma:
            return _literal(default.strip().strip("'"))
        raise _VariableMissing(name)

    return (lambda text: _VARIABLE.sub(value_of, text)) if version == _VARIABLES_SINCE else (lambda text: text)


def _literal(text: str) -> str:
    return re.sub(r"[*?$]", lambda found: f"[{found[0]}]", text)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\[[*?$]\]|\*|\?)", text)
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(part) or re.escape(_unliteral(part)) for part in parts), re.DOTALL)


def _unliteral(text: str) -> str:
    return re.sub(r"\[([*?$])\]", r"\1", text)


def glob(pattern: str, value: str) -> bool:
    """Whether the value matches a pattern with `*` (any text) and `?` (one character)."""
    return _pattern(pattern).fullmatch(value) is not None


def _arn_like(pattern: str, value: str) -> bool:
    """Each of the six parts of an ARN on its own: a `*` does not reach over a colon."""
    wanted, actual = pattern.split(":", 5), value.split(":", 5)
    return len(wanted) == len(actual) == 6 and all(glob(w, a) for w, a in zip(wanted, actual, strict=True))


def _number(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def test(wanted: str, actual: str) -> bool:
        try:
            return compare(float(actual), float(wanted))
        except ValueError as why:
            raise _Unclear from why

    return test


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, actual: _unliteral(wanted) == actual,
    "StringEqualsIgnoreCase": lambda wanted, actual: _unliteral(wanted).lower() == actual.lower(),
    "StringLike": glob,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda wanted, actual: _unliteral(wanted).lower() == actual.lower(),
    "NumericEquals": _number(lambda actual, wanted: actual == wanted),
    "NumericLessThan": _number(lambda actual, wanted: actual < wanted),
    "NumericLessThanEquals": _number(lambda actual, wanted: actual <= wanted),
    "NumericGreaterThan": _number(lambda actual, wanted: actual > wanted),
    "NumericGreaterThanEquals": _number(lambda actual, wanted: actual >= wanted),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}


def _conditions_hold(
    conditions: Mapping[str, Mapping[str, Any]], keys: Context, expand: Callable[[str], str], denies: bool
) -> bool:
    """All operators and all keys must hold; of the values beside one key, any."""
    return all(
        _holds(operator, keys.get(key.lower()), [expand(_text(v)) for v in _many(wanted)], denies)
        for operator, tests in conditions.items()
        for key, wanted in tests.items()
    )


def _holds(operator: str, present: Any, wanted: Sequence[str], denies: bool) -> bool:
    quantifier, _, rest = operator.rpartition(":")
    name = rest.removesuffix("IfExists")
    if name == "Null":
        return any((value.lower() == "true") == (present is None) for value in wanted)
    test = _test(name)
    values = [_text(value) for value in _many(present)] if present is not None else []
    match quantifier:
        case "ForAllValues":
            return all(test(wanted, value) for value in values)
        case "ForAnyValue":
            return any(test(wanted, value) for value in values) or (not values and rest != name)
        case "":
            if not values:
                return rest != name or name in _NEGATED
            verdicts = [test(wanted, value) for value in values]
            return any(verdicts) if denies else all(verdicts)
    raise _Unclear(operator)


def _test(name: str) -> Callable[[Sequence[str], str], bool]:
    positive = _TESTS.get(_NEGATED.get(name, name))
    if positive is None:
        raise _Unclear(name)
    if name in _NEGATED:
        return lambda wanted, actual: not any(positive(value, actual) for value in wanted)
    return lambda wanted, actual: any(positive(value, actual) for value in wanted)


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
