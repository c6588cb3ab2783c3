"""Instances, their states, tags, Spot requests and fleets, as the Describe calls tell of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from spotrelay.localcloud.ec2 import catalogue, filters
from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.filters import Values
from spotrelay.localcloud.ec2.metadata import profile_arn
from spotrelay.localcloud.ec2.records import SPOT, STATE_CODES, Fleet, Instance, SpotRequest
from spotrelay.localcloud.ec2.reserved import BLOCK
from spotrelay.localcloud.ec2.store import Store

_INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")

INSTANCE_FILTERS: dict[str, Values] = {
    "availability-zone": lambda i: [i.pool.zone],
    "client-token": lambda i: [i.client_token],
    "iam-instance-profile.arn": lambda i: [profile_arn(i.blueprint.profile, i.owner)] if i.blueprint.profile else [],
    "image-id": lambda i: [i.blueprint.image_id],
    "instance-id": lambda i: [i.instance_id],
    "instance-lifecycle": lambda i: [SPOT] if i.pool.market == SPOT else [],
    "instance-state-code": lambda i: [str(STATE_CODES[i.state])],
    "instance-state-name": lambda i: [i.state],
    "instance-type": lambda i: [i.pool.instance_type],
    "launch-time": lambda i: [datetime.fromtimestamp(i.launched_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")],
    "owner-id": lambda i: [i.owner],
    "private-ip-address": lambda i: [i.private_ip],
    "reservation-id": lambda i: [i.reservation_id],
    "spot-instance-request-id": lambda i: [i.spot_request_id] if i.spot_request_id else [],
    "state-reason-code": lambda i: [i.state_reason[0]] if i.state_reason else [],
    "subnet-id": lambda i: [i.blueprint.subnet_id] if i.blueprint.subnet_id else [],
    "tag-key": lambda i: i.tags,
    "tag-value": lambda i: i.tags.values(),
    "tag:": lambda i: filters.tag_pairs(i.tags),
    "vpc-id": lambda i: [i.blueprint.vpc_id] if i.blueprint.vpc_id else [],
}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 writes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def known_instances(visible: Sequence[Instance], ids: Sequence[str]) -> list[Instance]:
    """The instances with these ids, in the order asked for.

    Raises:
        Ec2Error: an id is malformed, or there is no such instance.
    """
    for instance_id in ids:
        if not _INSTANCE_ID.fullmatch(instance_id):
            raise Ec2Error("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
    by_id = {instance.instance_id: instance for instance in visible}
    missing = [instance_id for instance_id in ids if instance_id not in by_id]
    if missing:
        plural, verb = ("s", "do") if len(missing) > 1 else ("", "does")
        text = f"The instance ID{plural} '{', '.join(missing)}' {verb} not exist"
        raise Ec2Error("InvalidInstanceID.NotFound", text)
    return [by_id[instance_id] for instance_id in dict.fromkeys(ids)]


def instances(visible: Sequence[Instance], request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeInstances."""
    if request.get("InstanceIds") and request.get("MaxResults"):
        text = "The parameter instancesSet cannot be used with the parameter maxResults"
        raise Ec2Error("InvalidParameterCombination", text)
    found = known_instances(visible, request["InstanceIds"]) if request.get("InstanceIds") else list(visible)
    some, following = filters.page(filters.select(found, request.get("Filters"), INSTANCE_FILTERS), request)
    return {"Reservations": reservations(some), "NextToken": following}


def reservations(some: Iterable[Instance]) -> list[dict[str, Any]]:
    """Instances by the reservation that launched them."""
    grouped: dict[str, list[Instance]] = {}
    for instance in some:
        grouped.setdefault(instance.reservation_id, []).append(instance)
    return [reservation(members) for members in grouped.values()]


def reservation(members: Sequence[Instance]) -> dict[str, Any]:
    """One reservation; the whole answer of RunInstances, too."""
    first = members[0]
    return {
        "ReservationId": first.reservation_id,
        "OwnerId": first.owner,
        "Groups": [],
        "Instances": [_instance(member) for member in members],
    }


def _instance(i: Instance) -> dict[str, Any]:
    plan = i.blueprint
    gone = i.state == "terminated"
    told: dict[str, Any] = {
        "InstanceId": i.instance_id,
        "ImageId": plan.image_id,
        "InstanceType": i.pool.instance_type,
        "State": {"Code": STATE_CODES[i.state], "Name": i.state},
        "StateTransitionReason": _transition(i),
        "StateReason": {"Code": i.state_reason[0], "Message": i.state_reason[1]} if i.state_reason else None,
        "LaunchTime": i.launched_at,
        "AmiLaunchIndex": i.launch_index,
        "Placement": {
            "AvailabilityZone": i.pool.zone,
            "AvailabilityZoneId": catalogue.zone_id(i.pool.zone),
            "GroupName": i.blueprint.placement_group,
            "Tenancy": "default",
        },
        "Monitoring": {"State": "disabled"},
        "Architecture": catalogue.instance_types()[i.pool.instance_type].architecture,
        "ClientToken": i.client_token,
        "EbsOptimized": False,
        "EnaSupport": True,
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [],
        "ProductCodes": [],
        "NetworkInterfaces": [],
        "SecurityGroups": [{"GroupId": group, "GroupName": group} for group in plan.security_groups],
        "Tags": tag_list(i.tags),
        "PrivateDnsName": "" if gone else f"ip-{i.private_ip.replace('.', '-')}.ec2.internal",
        "PublicDnsName": "",
        "MetadataOptions": _metadata_options(plan.metadata),
    }
    optional = {
        "InstanceLifecycle": i.pool.market if i.pool.market in (SPOT, BLOCK) else None,
        "CapacityReservationId": plan.reservation or None,
        "CapacityReservationSpecification": _target(plan.reservation) if plan.reservation else None,
        "SpotInstanceRequestId": i.spot_request_id or None,
        "KeyName": plan.key_name or None,
        "PrivateIpAddress": None if gone else i.private_ip,
        "SubnetId": None if gone else plan.subnet_id or None,
        "VpcId": None if gone else plan.vpc_id or None,
    }
    if plan.profile:
        optional_profile = {"Arn": profile_arn(plan.profile, i.owner), "Id": "AIPA" + i.instance_id[2:].upper()}
        told["IamInstanceProfile"] = optional_profile
    return {**told, **{name: value for name, value in optional.items() if value is not None}}


def _target(reservation: str) -> dict[str, Any]:
    return {"CapacityReservationTarget": {"CapacityReservationId": reservation}}


def _metadata_options(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "State": "applied",
        "HttpTokens": asked.get("HttpTokens", "required"),
        "HttpPutResponseHopLimit": int(asked.get("HttpPutResponseHopLimit", 1)),
        "HttpEndpoint": asked.get("HttpEndpoint", "enabled"),
        "InstanceMetadataTags": asked.get("InstanceMetadataTags", "disabled"),
    }


def _transition(instance: Instance) -> str:
    if instance.state_reason is None or instance.ended_at is None:
        return ""
    at = datetime.fromtimestamp(instance.ended_at, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
    code = instance.state_reason[0]
    return f"User initiated ({at})" if code == "Client.UserInitiatedShutdown" else f"{code} ({at})"


STATUS_FILTERS: dict[str, Values] = {
    "availability-zone": lambda i: [i.pool.zone],
    "instance-state-code": lambda i: [str(STATE_CODES[i.state])],
    "instance-state-name": lambda i: [i.state],
}


def statuses(visible: Sequence[Instance], request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeInstanceStatus: running instances only, unless all are asked for."""
    found = known_instances(visible, request["InstanceIds"]) if request.get("InstanceIds") else list(visible)
    if not request.get("IncludeAllInstances"):
        found = [instance for instance in found if instance.state == "running"]
    some, following = filters.page(filters.select(found, request.get("Filters"), STATUS_FILTERS), request)
    return {"InstanceStatuses": [_status(instance) for instance in some], "NextToken": following}


def _status(instance: Instance) -> dict[str, Any]:
    word, passed = ("ok", "passed") if instance.state == "running" else ("not-applicable", "not-applicable")
    summary: dict[str, Any] = {"Status": word}
    if word == "ok":
        summary["Details"] = [{"Name": "reachability", "Status": passed}]
    return {
        "InstanceId": instance.instance_id,
        "AvailabilityZone": instance.pool.zone,
        "InstanceState": {"Code": STATE_CODES[instance.state], "Name": instance.state},
        "InstanceStatus": summary,
        "SystemStatus": summary,
    }


_TAG_FILTERS: dict[str, Values] = {
    "key": lambda row: [row["Key"]],
    "value": lambda row: [row["Value"]],
    "resource-id": lambda row: [row["ResourceId"]],
    "resource-type": lambda row: [row["ResourceType"]],
    "tag:": lambda row: filters.tag_pairs({row["Key"]: row["Value"]}),
}


def tags(store: Store, visible: Sequence[Instance], region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeTags."""
    holders: list[tuple[str, str, Mapping[str, str]]] = [("instance", i.instance_id, i.tags) for i in visible]
    holders += [("fleet", f.fleet_id, f.tags) for f in store.fleets.values() if f.region == region]
    holders += [("spot-instances-request", r.request_id, r.tags) for r in _spot_requests(store, region)]
    rows = [
        {"ResourceType": kind, "ResourceId": name, "Key": key, "Value": value}
        for kind, name, held in holders
        for key, value in held.items()
    ]
    some, following = filters.page(filters.select(rows, request.get("Filters"), _TAG_FILTERS), request)
    return {"Tags": some, "NextToken": following}


def _spot_requests(store: Store, region: str) -> list[SpotRequest]:
    return [r for r in store.spot_requests.values() if store.instances[r.instance_id].pool.region == region]


def spot_requests(store: Store, region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeSpotInstanceRequests."""
    found = _spot_requests(store, region)
    asked = request.get("SpotInstanceRequestIds") or []
    missing = set(asked) - {r.request_id for r in found}
    if missing:
        text = f"The spot instance request ID '{min(missing)}' does not exist"
        raise Ec2Error("InvalidSpotInstanceRequestID.NotFound", text)
    rows = [_spot_request(store.instances[r.instance_id], r) for r in found if not asked or r.request_id in asked]
    known: dict[str, Values] = {
        "instance-id": lambda row: [row["InstanceId"]],
        "spot-instance-request-id": lambda row: [row["SpotInstanceRequestId"]],
        "state": lambda row: [row["State"]],
        "status-code": lambda row: [row["Status"]["Code"]],
        "launch.instance-type": lambda row: [row["LaunchSpecification"]["InstanceType"]],
        "launched-availability-zone": lambda row: [row["LaunchedAvailabilityZone"]],
        "tag-key": lambda row: [tag["Key"] for tag in row["Tags"]],
        "tag:": lambda row: filters.tag_pairs({tag["Key"]: tag["Value"] for tag in row["Tags"]}),
    }
    some, following = filters.page(filters.select(rows, request.get("Filters"), known), request)
    return {"SpotInstanceRequests": some, "NextToken": following}


def _spot_request(instance: Instance, request: SpotRequest) -> dict[str, Any]:
    state, code = _spot_status(instance)
    at = instance.ended_at if state == "closed" and instance.ended_at else request.created_at
    return {
        "SpotInstanceRequestId": request.request_id,
        "InstanceId": instance.instance_id,
        "CreateTime": request.created_at,
        "InstanceInterruptionBehavior": instance.blueprint.interruption_behavior,
        "LaunchSpecification": {
            "ImageId": instance.blueprint.image_id,
            "InstanceType": instance.pool.instance_type,
            "Placement": {"AvailabilityZone": instance.pool.zone},
        },
        "LaunchedAvailabilityZone": instance.pool.zone,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": f"{catalogue.instance_types()[instance.pool.instance_type].price:.6f}",
        "State": state,
        "Status": {"Code": code, "Message": f"Your Spot request is {code}.", "UpdateTime": at},
        "Tags": tag_list(request.tags),
        "Type": "one-time",
    }


def _spot_status(instance: Instance) -> tuple[str, str]:
    """State and status code. Source: EC2 User Guide, "Spot request status codes"."""
    if not instance.is_over:
        return "active", "marked-for-termination" if instance.notice else "fulfilled"
    reclaimed = instance.state_reason is not None and instance.state_reason[0] == "Server.SpotInstanceTermination"
    return "closed", "instance-terminated-no-capacity" if reclaimed else "instance-terminated-by-user"


def fleets(store: Store, region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeFleets; instant fleets are told of only to those who name them."""
    asked = request.get("FleetIds") or []
    found = [store.fleets[name] for name in asked if name in store.fleets and store.fleets[name].region == region]
    if len(found) < len(asked):
        raise Ec2Error("InvalidFleetId.NotFound", f"One of the fleet ids {', '.join(asked)} does not exist")
    known: dict[str, Values] = {
        "fleet-state": lambda fleet: ["active"],
        "type": lambda fleet: ["instant"],
    }
    some, following = filters.page(filters.select(found, request.get("Filters"), known), request, fewest=1)
    return {"Fleets": [_fleet(fleet) for fleet in some], "NextToken": following}


def _fleet(fleet: Fleet) -> dict[str, Any]:
    target = fleet.request["TargetCapacitySpecification"]
    errors = fleet.answer["Errors"]
    launched = [
        {k: v for k, v in group.items() if k not in ("AvailabilityZone", "AvailabilityZoneId", "SubnetId")}
        for group in fleet.answer["Instances"]
    ]
    return {
        "FleetId": fleet.fleet_id,
        "FleetState": "active",
        "Type": "instant",
        "ClientToken": fleet.client_token,
        "CreateTime": fleet.created_at,
        "FulfilledCapacity": float(sum(len(group["InstanceIds"]) for group in launched)),
        "TargetCapacitySpecification": {
            name: target[name]
            for name in ("TotalTargetCapacity", "OnDemandTargetCapacity", "SpotTargetCapacity")
            if name in target
        },
        "Errors": errors,
        "Instances": launched,
        "Tags": tag_list(fleet.tags),
    }
