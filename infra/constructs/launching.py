"""Who may start, tag and end machines: only from our template, only with our tag, only those with our tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import Stack, aws_iam
from constructs import Construct

from infra.constructs.acknowledge import acknowledge_wildcards

MANAGED = "spotrelay:managed"  # tag; its value is the stack's name
SPOT = "spot.amazonaws.com"


@dataclass(frozen=True)
class Pad:
    """What machines are started from in one region. Fields may be tokens."""

    region: str
    template: str  # id
    subnets: tuple[str, ...]  # ids
    security_group: str = "*"  # id; the pattern where only that region's stack knows it


def grant_launch(role: aws_iam.Role, managed: str, pad: Pad) -> None:
    """Start machines from one template with our tag.

    Four things must agree: our template for every part of the machine, image and group from the
    template and not from the request, a subnet of ours, and our tag on the machine.
    """

    def arn(kind: str, name: str, account: str | None = None) -> str:
        return _arn(role, pad.region, kind, name, account)

    template = arn("launch-template", pad.template)
    subnets = [arn("subnet", subnet) for subnet in pad.subnets]
    machine, fleet = arn("instance", "*"), arn("fleet", "*")
    parts = [arn(kind, "*") for kind in ("volume", "network-interface", "spot-instances-request")]
    fixed = [arn("image", "*", account=""), arn("security-group", pad.security_group)]
    ours = {"ArnEquals": {"ec2:LaunchTemplate": template}}
    tagged = {"StringEquals": {f"aws:RequestTag/{MANAGED}": managed}}
    from_template = {**ours, "Bool": {"ec2:IsLaunchTemplateResource": "true"}}
    why = "New machines have no ids yet: template, tag and subnet are required by the statement instead."
    _allow(role, "ec2:CreateFleet", [fleet, template, *subnets], {}, why)
    _allow(role, "ec2:CreateFleet", [machine], tagged, why)
    _allow(role, "ec2:RunInstances", [machine], {**ours, **tagged}, why)
    _allow(role, "ec2:RunInstances", [*parts, template, *subnets], ours, why)
    _allow(role, "ec2:RunInstances", fixed, from_template, why)
    # Never afterwards: the tag decides which machines we may end.
    at_launch = {"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}}
    _allow(role, "ec2:CreateTags", [machine, *parts], at_launch, why)


def grant_terminate(role: aws_iam.Role, managed: str, region: str) -> None:
    """End machines that carry this stack's tag."""
    ours = {"StringEquals": {f"aws:ResourceTag/{MANAGED}": managed}}
    why = "Machines come and go: the statement requires our tag instead of their ids."
    _allow(role, "ec2:TerminateInstances", [_arn(role, region, "instance", "*")], ours, why)


def grant_identity(role: aws_iam.Role, instance_role_arn: str) -> None:
    """Give machines the instance role, this one and to EC2 only; let a new account have Spot's own role."""
    stack = Stack.of(role)
    to_ec2 = {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}}
    spot = f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role/{SPOT}/AWSServiceRoleForEC2Spot"
    _allow(role, "iam:PassRole", [instance_role_arn], to_ec2, "")
    _allow(role, "iam:CreateServiceLinkedRole", [spot], {"StringEquals": {"iam:AWSServiceName": SPOT}}, "")


def grant_describe(role: aws_iam.Role) -> None:
    """Look at machines and prices."""
    why = "EC2 knows no narrower resource than all for looking."
    for action in ("ec2:DescribeInstances", "ec2:DescribeSpotPriceHistory"):
        _allow(role, action, ["*"], {}, why)


def _allow(
    role: aws_iam.Role, action: str, resources: Sequence[str], conditions: dict[str, dict[str, Any]], why: str
) -> None:
    role.add_to_policy(
        aws_iam.PolicyStatement(actions=[action], resources=list(resources), conditions=conditions or None)
    )
    acknowledge_wildcards(role, why, *resources)


def _arn(scope: Construct, region: str, kind: str, name: str, account: str | None = None) -> str:
    stack = Stack.of(scope)
    owner = stack.account if account is None else account
    return f"arn:{stack.partition}:ec2:{region}:{owner}:{kind}/{name}"
