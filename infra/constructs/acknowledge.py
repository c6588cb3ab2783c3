"""Findings of cdk-nag that stay, each with its reason, beside the construct that causes it."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, reason: str, *findings: str) -> None:
    """Accept these findings of the AwsSolutions pack on this construct and everything below it.

    Args:
        findings: as the rule pack writes them, without its name, such as `IAM5[Resource::*]`.
    """
    for finding in findings:
        Validations.of(construct).acknowledge(Acknowledgment(id=f"AwsSolutions-{finding}", reason=reason))
