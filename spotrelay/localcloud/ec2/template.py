"""From a request, its launch template and the template's overrides to one blueprint.

What the request itself says goes before the template, member by member; tags of both are kept, by key. Members
without an effect on a process (block devices, key pairs, CPU options …) are accepted and have none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from spotrelay.localcloud.ec2 import catalogue
from spotrelay.localcloud.ec2.errors import Ec2Error, invalid_value
from spotrelay.localcloud.ec2.metadata import TAG_KEY
from spotrelay.localcloud.ec2.records import ON_DEMAND, SPOT, Blueprint, Pool
from spotrelay.localcloud.ec2.reserved import BLOCK
from spotrelay.localcloud.ec2.world import World

_USER_DATA_LIMIT = 16 * 1024
_TAG_LIMIT = 50
_EMULATED_BEHAVIOR = "terminate"


def load(world: World, specification: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """A launch template's data, id or name, and version.

    Raises:
        Ec2Error: there is no such template or version.
    """
    by_id = specification.get("LaunchTemplateId")
    name = str(by_id or specification.get("LaunchTemplateName") or "")
    if not name:
        raise Ec2Error("MissingParameter", "The request must contain LaunchTemplateId or LaunchTemplateName")
    version = str(specification.get("Version") or "$Default")
    try:
        return dict(world.launch_template(name, version)), name, version
    except Exception as why:
        if _exists(world, name):
            text = f"Could not find the specified version {version} for launch template {name}: {why}"
            raise Ec2Error("InvalidLaunchTemplateId.VersionNotFound", text) from why
        code = "InvalidLaunchTemplateId.NotFound" if by_id else "InvalidLaunchTemplateName.NotFoundException"
        raise Ec2Error(code, f"The specified launch template, {name}, does not exist: {why}") from why


def _exists(world: World, name: str) -> bool:
    try:
        world.launch_template(name, "$Default")
    except Exception:  # noqa: BLE001  # whatever it is, the template is not there
        return False
    return True


def merge(
    world: World,
    region: str,
    own: Mapping[str, Any],
    specification: Mapping[str, Any] | None,
    market: str | None = None,
    zone_of_choice: str = "",
) -> Blueprint:
    """One launch.

    Args:
        own: what the request says, in the shape of RunInstances.
        specification: the launch template, if one is used.
        market: given by a fleet; otherwise the market options decide.
        zone_of_choice: where EC2 places an instance for which nobody names a zone.

    Raises:
        Ec2Error: something is missing or wrong.
    """
    data, name, version = load(world, specification) if specification else ({}, "", "")
    said: dict[str, Any] = {**data, **own}
    options = said.get("InstanceMarketOptions") or {}
    market = market or str(options.get("MarketType") or ON_DEMAND)
    if market not in (SPOT, ON_DEMAND, BLOCK):
        raise invalid_value(market, "MarketType")
    if market == SPOT:
        _check_spot(options.get("SpotOptions") or {})
    instance_type = _checked_type(said.get("InstanceType"))
    if not said.get("ImageId"):
        raise Ec2Error("MissingParameter", "The request must contain the parameter ImageId")
    subnet_id, vpc_id, zone = _place(world, region, own, data, zone_of_choice)
    tags = _tags(data.get("TagSpecifications"), own.get("TagSpecifications"))
    options_of_metadata = dict(said.get("MetadataOptions") or {})
    _check_tags(tags, options_of_metadata)
    given = said.get("IamInstanceProfile") or {}
    profile = str(given.get("Arn") or given.get("Name") or "")
    interfaces = said.get("NetworkInterfaces") or [{}]
    return Blueprint(
        pool=Pool(region, zone, instance_type, market),
        subnet_id=subnet_id,
        vpc_id=vpc_id,
        image_id=str(said["ImageId"]),
        user_data=_user_data(said.get("UserData")),
        profile=profile,
        role=_role(world, profile),
        tags=tags,
        security_groups=tuple(said.get("SecurityGroupIds") or interfaces[0].get("Groups") or ()),
        key_name=str(said.get("KeyName") or ""),
        shutdown_behavior=str(said.get("InstanceInitiatedShutdownBehavior") or "stop"),
        interruption_behavior=_EMULATED_BEHAVIOR,
        max_price=_price((options.get("SpotOptions") or {}).get("MaxPrice")),
        metadata=options_of_metadata,
        template_id=name,
        template_version=version,
        overridden=frozenset(own),
        reservation=_reservation(said),
        placement_group=str((own.get("Placement") or {}).get("GroupName") or ""),
    )


def _reservation(said: Mapping[str, Any]) -> str:
    target = (said.get("CapacityReservationSpecification") or {}).get("CapacityReservationTarget") or {}
    return str(target.get("CapacityReservationId") or "")


def _checked_type(name: Any) -> str:
    if not name:
        raise Ec2Error("MissingParameter", "The request must contain the parameter InstanceType")
    if name not in catalogue.instance_types():
        raise Ec2Error("Unsupported", f"Your requested instance type ({name}) is not offered in this emulated region.")
    return str(name)


def _check_spot(options: Mapping[str, Any]) -> None:
    if options.get("SpotInstanceType", "one-time") != "one-time":
        raise Ec2Error("UnsupportedOperation", "This emulation knows one-time Spot requests only")
    if options.get("InstanceInterruptionBehavior", _EMULATED_BEHAVIOR) != _EMULATED_BEHAVIOR:
        raise Ec2Error("UnsupportedOperation", "This emulation knows the interruption behavior terminate only")


def _place(
    world: World, region: str, own: Mapping[str, Any], data: Mapping[str, Any], zone_of_choice: str
) -> tuple[str, str, str]:
    """Subnet, VPC and zone; the request's place goes before the template's as a whole."""
    for source in (own, data):
        subnet_id = source.get("SubnetId") or ((source.get("NetworkInterfaces") or [{}])[0]).get("SubnetId")
        zone = (source.get("Placement") or {}).get("AvailabilityZone")
        if subnet_id:
            found = _subnet(world, str(subnet_id), region)
            if zone and zone != found["AvailabilityZone"]:
                raise Ec2Error("InvalidParameterCombination", f"Subnet {subnet_id} is not in {zone}")
            return str(subnet_id), str(found["VpcId"]), str(found["AvailabilityZone"])
        if zone:
            if not catalogue.is_zone(str(zone), region):
                raise invalid_value(zone, "availability zone", f"{region} has no such zone.")
            return "", "", str(zone)
    return "", "", zone_of_choice or catalogue.zones(region)[0]


def _subnet(world: World, subnet_id: str, region: str) -> Mapping[str, str]:
    text = f"The subnet ID '{subnet_id}' does not exist"
    try:
        found = world.subnet(subnet_id)
    except Exception as why:
        raise Ec2Error("InvalidSubnetID.NotFound", text) from why
    if catalogue.region_of(found["AvailabilityZone"]) != region:
        raise Ec2Error("InvalidSubnetID.NotFound", text)
    return found


def _role(world: World, profile: str) -> str:
    try:
        return world.profile_role(profile) if profile else ""
    except Exception as why:
        raise invalid_value(profile, "iamInstanceProfile", f"Invalid IAM Instance Profile: {why}") from why


def _user_data(text: Any) -> bytes | None:
    if not text:
        return None
    try:
        data = base64.b64decode("".join(str(text).split()), validate=True)
    except binascii.Error as why:
        raise Ec2Error("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from why
    if len(data) > _USER_DATA_LIMIT:
        raise invalid_value("…", "user data", f"User data is limited to {_USER_DATA_LIMIT} bytes.")
    return data


def _price(text: Any) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as why:
        raise invalid_value(text, "MaxPrice") from why


def _tags(*specifications: Any) -> dict[str, dict[str, str]]:
    merged: dict[str, dict[str, str]] = {}
    for specification in [one for some in specifications for one in some or []]:
        given = {str(tag["Key"]): str(tag.get("Value", "")) for tag in specification.get("Tags") or []}
        merged.setdefault(str(specification.get("ResourceType", "")), {}).update(given)
    return merged


def check_tag_keys(keys: Mapping[str, str] | list[str]) -> None:
    """Refuse what nobody may use as a tag's key.

    Raises:
        Ec2Error: a reserved prefix, an overlong key, or too many.
    """
    for key in keys:
        if key.lower().startswith("aws:"):
            raise Ec2Error(
                "InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved for internal use: {key}"
            )
        if not 1 <= len(key) <= 127:
            raise Ec2Error("InvalidParameterValue", f"Tag key exceeds the maximum length of 127 characters: {key}")
    if len(keys) > _TAG_LIMIT:
        raise Ec2Error("TagLimitExceeded", f"The maximum number of tags for a resource is {_TAG_LIMIT}")


def _check_tags(tags: Mapping[str, Mapping[str, str]], metadata: Mapping[str, Any]) -> None:
    for of_one_type in tags.values():
        check_tag_keys(dict(of_one_type))
    if metadata.get("InstanceMetadataTags") == "enabled":
        for key in tags.get("instance", {}):
            if not TAG_KEY.fullmatch(key) or key in (".", "..", "_index"):
                text = f"'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\\\-_+=,.@:]{{1,255}})"
                raise Ec2Error(
                    "InvalidParameterValue", f"{text}, and must not be a reserved name ('.', '..', '_index')"
                )
