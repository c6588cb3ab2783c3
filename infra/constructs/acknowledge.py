"""Findings of cdk-nag that stay, each with its reason, beside the construct that causes it."""

from __future__ import annotations

from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, reason: str, *findings: str) -> None:
    """Accept these findings of the AwsSolutions pack on this construct and everything below it.

    Args:
        findings: as the rule pack writes them, without its name, such as `SQS3`.
    """
    for finding in findings:
        Validations.of(construct).acknowledge(Acknowledgment(id=f"AwsSolutions-{finding}", reason=reason))


def acknowledge_wildcards(construct: IConstruct, reason: str, *resources: str) -> None:
    """Accept that a policy of this construct names resources by a pattern; those without one are passed over."""
    stack = Stack.of(construct)
    texts = (_as_nag_writes(stack.resolve(resource)) for resource in resources)
    acknowledge(construct, reason, *(f"IAM5[Resource::{text}]" for text in texts if "*" in text))


def _as_nag_writes(value: Any) -> str:
    """A resolved ARN as one text: `<Name>` for a reference, `<Name.Attribute>` for an attribute."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(_as_nag_writes(part) for part in parts)
    if "Fn::GetAtt" in value:
        return f"<{'.'.join(value['Fn::GetAtt'])}>"
    return f"<{value['Ref']}>"
