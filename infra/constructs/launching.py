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


class LaunchRights(Construct):
    """What it takes to run machines in one region, in a policy of its own: a role has room for ten of them.

    Four things must agree for a launch: our template for every part of the machine, image and
    group from the template and not from the request, a subnet of ours, and our tag on the machine.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        managed: str,
        pad: Pad,
        instance_role_arn: str,
        roles: Sequence[aws_iam.Role],
    ) -> None:
        super().__init__(scope, name)
        self._region = pad.region
        self._policy = aws_iam.ManagedPolicy(
            self, "Policy", description=f"Machines of Spotrelay in {pad.region}", roles=list(roles)
        )
        self._allow_launch(managed, pad)
        self._allow_end(managed)
        self._allow_identity(instance_role_arn)
        # EC2 knows no narrower resource than all for looking.
        self._allow(["ec2:DescribeInstances", "ec2:DescribeSpotPriceHistory"], ["*"], {})

    def _allow_launch(self, managed: str, pad: Pad) -> None:
        template = self._arn("launch-template", pad.template)
        subnets = [self._arn("subnet", subnet) for subnet in pad.subnets]
        machine, fleet = self._arn("instance", "*"), self._arn("fleet", "*")
        parts = [self._arn(kind, "*") for kind in ("volume", "network-interface", "spot-instances-request")]
        groups = self._arn("placement-group", "*")  # the spec names one of the user's own
        reserved = self._arn("capacity-reservation", "*")  # of the account; a spec names the one that it may use
        fixed = [self._arn("image", "*", account=""), self._arn("security-group", pad.security_group)]
        ours = {"ArnEquals": {"ec2:LaunchTemplate": template}}
        tagged = {"StringEquals": {f"aws:RequestTag/{MANAGED}": managed}}
        from_template = {**ours, "Bool": {"ec2:IsLaunchTemplateResource": "true"}}
        self._allow(["ec2:CreateFleet"], [fleet, template, *subnets], {})
        self._allow(["ec2:CreateFleet"], [machine], tagged)
        self._allow(["ec2:RunInstances"], [machine], {**ours, **tagged})
        self._allow(["ec2:RunInstances"], [*parts, template, *subnets, groups, reserved], ours)
        self._allow(["ec2:RunInstances"], fixed, from_template)
        # Never afterwards: the tag decides which machines we may end.
        at_launch = {"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}}
        self._allow(["ec2:CreateTags"], [machine, *parts], at_launch)

    def _allow_end(self, managed: str) -> None:
        ours = {"StringEquals": {f"aws:ResourceTag/{MANAGED}": managed}}
        self._allow(["ec2:TerminateInstances"], [self._arn("instance", "*")], ours)

    def _allow_identity(self, instance_role_arn: str) -> None:
        """Give machines the instance role, this one and to EC2 only; let a new account have Spot's own role."""
        stack = Stack.of(self)
        to_ec2 = {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]}}
        spot = f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role/{SPOT}/AWSServiceRoleForEC2Spot"
        self._allow(["iam:PassRole"], [instance_role_arn], to_ec2)
        self._allow(["iam:CreateServiceLinkedRole"], [spot], {"StringEquals": {"iam:AWSServiceName": SPOT}})

    def _allow(self, actions: list[str], resources: list[str], conditions: dict[str, dict[str, Any]]) -> None:
        self._policy.add_statements(
            aws_iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions or None)
        )
        why = "New machines have no ids yet: template, tag and subnet are required instead. Looking needs all."
        acknowledge_wildcards(self._policy, why, *resources)

    def _arn(self, kind: str, name: str, account: str | None = None) -> str:
        stack = Stack.of(self)
        owner = stack.account if account is None else account
        return f"arn:{stack.partition}:ec2:{self._region}:{owner}:{kind}/{name}"
