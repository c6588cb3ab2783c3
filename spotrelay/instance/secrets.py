"""Secret references of the spec, resolved on the machine, for the program's environment only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from spotrelay.core.errors import InvalidInput


class SecretSource(Protocol):
    """Where secrets are kept."""

    def parameter(self, name: str) -> str:
        """The decrypted value of an SSM parameter."""
        ...

    def secret(self, name: str) -> str:
        """The text of a Secrets Manager secret."""
        ...


def resolve(references: Mapping[str, str], source: SecretSource) -> dict[str, str]:
    """Each variable's value.

    Raises:
        InvalidInput: a reference is of no known kind, or its value cannot be a variable's.
        SpotrelayError: the source's own; its text names the reference, never a value.
    """
    return {variable: _value(variable, reference, source) for variable, reference in references.items()}


def _value(variable: str, reference: str, source: SecretSource) -> str:
    kind, _, name = reference.partition(":")
    if kind == "ssm":
        value = source.parameter(name)
    elif kind == "secretsmanager":
        value = source.secret(name)
    else:
        raise InvalidInput(f"secret {variable}: {reference!r} is neither ssm:/name nor secretsmanager:id")
    if "\0" in value:
        raise InvalidInput(f"secret {variable}: the value of {reference} holds a NUL byte, which no variable can")
    return value
