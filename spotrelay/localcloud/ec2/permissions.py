"""Which rights a request needs: actions on resources, in the context that EC2 gives to the policies.

Source:
    Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2"; EC2 User Guide,
    "Example policies: launch templates" and "Tag resources during creation".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spotrelay.localcloud import policy
from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.records import SPOT, Blueprint, Instance
from spotrelay.localcloud.ec2.world import World

EC2_SERVICE = "ec2.amazonaws.com"


@dataclass(frozen=True)
class Need:
    """One question to the policies."""

    action: str
    resource: str
    context: Mapping[str, Any]


def require(world: World, caller: str, region: str, needs: Iterable[Need]) -> None:
    """Let the caller pass only if every need is granted.

    Raises:
        Ec2Error: UnauthorizedOperation, naming the action and the resource.
    """
    policies = world.policies(caller)
    common = {
        "aws:RequestedRegion": region,
        "aws:PrincipalArn": _principal(caller),
        "aws:PrincipalAccount": caller.split(":")[4] if caller.count(":") >= 5 else "",
        "aws:SecureTransport": "true",
        "ec2:Region": region,
    }
    for need in needs:
        decision = policy.evaluate(policies, need.action, need.resource, {**common, **need.context})
        if not decision.allowed:
            raise Ec2Error(
                "UnauthorizedOperation",
                f"You are not authorized to perform this operation. User: {caller} is not authorized to perform: "
                f"{need.action} on resource: {need.resource} because {decision.why}.",
            )


def _principal(caller: str) -> str:
    """ARN that policies see: for a session, that of its role."""
    if ":assumed-role/" not in caller:
        return caller
    account, role = caller.split(":")[4], caller.split("/")[1]
    return f"arn:aws:iam::{account}:role/{role}"


def tags_asked(tags: Mapping[str, str]) -> dict[str, Any]:
    """Context of a request that sets tags."""
    if not tags:
        return {}
    return {**{f"aws:RequestTag/{key}": value for key, value in tags.items()}, "aws:TagKeys": list(tags)}


def tags_held(instance: Instance) -> dict[str, Any]:
    """Context of a request about an instance."""
    pool = instance.pool
    context: dict[str, Any] = {
        "ec2:InstanceType": pool.instance_type,
        "ec2:AvailabilityZone": pool.zone,
        "ec2:InstanceID": instance.instance_id,
    }
    for key, value in instance.tags.items():
        context[f"aws:ResourceTag/{key}"] = value
        context[f"ec2:ResourceTag/{key}"] = value
    return context


def to_launch(account: str, plan: Blueprint, create_action: str) -> list[Need]:
    """What RunInstances needs for one instance, whether it is called or stands behind a fleet."""
    arns = _Arns(plan.pool.region, account)
    template = {"ec2:LaunchTemplate": arns.of("launch-template", plan.template_id)} if plan.template_id else {}
    needs = []
    for kind, name, member in _resources(plan):
        tags = plan.tags.get(kind, {})
        context: dict[str, Any] = {**template, **tags_asked(tags), **_facts(plan, kind)}
        if plan.template_id:
            context["ec2:IsLaunchTemplateResource"] = str(member not in plan.overridden).lower()
        needs.append(Need("ec2:RunInstances", arns.of(kind, name), context))
        if tags:
            needs.append(Need("ec2:CreateTags", arns.of(kind, name), to_tag(tags, create_action)))
    if plan.role:
        passed = {"iam:PassedToService": EC2_SERVICE}
        needs.append(Need("iam:PassRole", plan.role, passed))
    return needs


def to_create_fleet(
    account: str, plans: Iterable[Blueprint], region: str, tags: Mapping[str, Mapping[str, str]]
) -> list[Need]:
    """What CreateFleet itself needs, before it launches anything."""
    arns = _Arns(region, account)
    fleet = arns.of("fleet", "*")
    needs = {fleet: Need("ec2:CreateFleet", fleet, tags_asked(tags.get("fleet", {})))}
    for plan in plans:
        for kind, name in (("launch-template", plan.template_id), ("subnet", plan.subnet_id)):
            if name:
                needs[arns.of(kind, name)] = Need("ec2:CreateFleet", arns.of(kind, name), {})
    instance = arns.of("instance", "*")
    needs[instance] = Need("ec2:CreateFleet", instance, tags_asked(tags.get("instance", {})))
    found = list(needs.values())
    for kind, given in tags.items():
        if given:
            found.append(Need("ec2:CreateTags", arns.of(kind, "*"), to_tag(given, "CreateFleet")))
    return found


def to_tag(tags: Mapping[str, str], create_action: str) -> dict[str, Any]:
    """Context of tagging something in the act of making it."""
    return {**tags_asked(tags), "ec2:CreateAction": create_action}


def _resources(plan: Blueprint) -> list[tuple[str, str, str]]:
    """Type, id, and the request's member that would override the template's."""
    found = [
        ("instance", "*", "InstanceType"),
        ("volume", "*", "BlockDeviceMappings"),
        ("network-interface", "*", "NetworkInterfaces"),
        ("image", plan.image_id, "ImageId"),
        *(("security-group", group, "SecurityGroupIds") for group in plan.security_groups),
    ]
    if plan.pool.market == SPOT:
        found.append(("spot-instances-request", "*", "InstanceMarketOptions"))
    if plan.subnet_id:
        found.append(("subnet", plan.subnet_id, "SubnetId"))
    if plan.template_id:
        found.append(("launch-template", plan.template_id, "LaunchTemplate"))
    if plan.placement_group:
        found.append(("placement-group", plan.placement_group, "Placement"))
    if plan.reservation:
        found.append(("capacity-reservation", plan.reservation, "CapacityReservationSpecification"))
    if plan.key_name:
        found.append(("key-pair", plan.key_name, "KeyName"))
    return found


def _facts(plan: Blueprint, kind: str) -> dict[str, Any]:
    if kind not in ("instance", "volume", "network-interface", "subnet"):
        return {}
    facts: dict[str, Any] = {"ec2:AvailabilityZone": plan.pool.zone}
    if kind == "instance":
        facts["ec2:InstanceType"] = plan.pool.instance_type
        facts["ec2:InstanceMarketType"] = plan.pool.market
        facts["ec2:MetadataHttpTokens"] = str(plan.metadata.get("HttpTokens", "required"))
        if plan.profile.startswith("arn:"):
            facts["ec2:InstanceProfile"] = plan.profile
    return facts


class _Arns:
    def __init__(self, region: str, account: str) -> None:
        self._region = region
        self._account = account

    def of(self, kind: str, name: str) -> str:
        owner = "" if kind in ("image", "snapshot") else self._account
        return f"arn:aws:ec2:{self._region}:{owner}:{kind}/{name}"
