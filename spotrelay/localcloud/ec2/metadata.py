"""What the metadata service of an instance tells: a tree of paths, read at the moment of asking. Plain functions.

Source:
    EC2 User Guide, "Instance metadata categories", "Instance identity documents" and "Spot Instance interruption
    notices".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from spotrelay.localcloud.ec2 import catalogue
from spotrelay.localcloud.ec2.records import Instance

Leaf = Callable[[], str]
Tree = dict[str, "Leaf | Tree"]
Credentials = Callable[[], Mapping[str, Any]]

VERSIONS = ("1.0", "2021-03-23", "2021-07-15", "2022-09-24", "2024-04-11", "latest")
_VERSION = re.compile(r"latest|1\.0|20\d\d-\d\d-\d\d")
TAG_KEY = re.compile(r"[0-9A-Za-z\-_+=,.@:]{1,255}")
"""Keys that an instance may have while its metadata shows tags."""


def day_and_second(at: float) -> str:
    """A time as the metadata service writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find(instance: Instance, role: str, credentials: Credentials, path: str) -> str | bytes | None:
    """The answer to a GET; None where there is nothing.

    Args:
        role: name of the instance profile's role; empty without a profile.
        path: as asked, with its version.
    """
    version, _, rest = path.strip("/").partition("/")
    if not version:
        return "\n".join(VERSIONS)
    if not _VERSION.fullmatch(version):
        return None
    if rest == "user-data":
        return instance.blueprint.user_data
    return _walk(_tree(instance, role, credentials), rest)


def _walk(tree: Tree, path: str) -> str | None:
    node: Leaf | Tree = tree
    for name in [part for part in path.split("/") if part]:
        if not isinstance(node, dict) or name not in node:
            return None
        node = node[name]
    if isinstance(node, dict):
        return "\n".join(name + ("/" if isinstance(below, dict) else "") for name, below in node.items())
    return node()


def _tree(instance: Instance, role: str, credentials: Credentials) -> Tree:
    return {
        "dynamic": {"instance-identity": {"document": lambda: _identity(instance)}},
        "meta-data": _meta_data(instance, role, credentials),
    }


def _meta_data(instance: Instance, role: str, credentials: Credentials) -> Tree:
    plan, pool = instance.blueprint, instance.pool
    host = f"ip-{instance.private_ip.replace('.', '-')}.ec2.internal"
    plain = {
        "ami-id": plan.image_id,
        "ami-launch-index": str(instance.launch_index),
        "hostname": host,
        "instance-action": "none",
        "instance-id": instance.instance_id,
        "instance-life-cycle": pool.market,
        "instance-type": pool.instance_type,
        "local-hostname": host,
        "local-ipv4": instance.private_ip,
        "profile": "default-hvm",
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(plan.security_groups),
    }
    place = {
        "availability-zone": pool.zone,
        "availability-zone-id": catalogue.zone_id(pool.zone),
        "region": pool.region,
    }
    tree: Tree = {
        **_leaves(plain),
        "events": {"maintenance": _leaves({"history": "[]", "scheduled": "[]"}), **_recommendations(instance)},
        "placement": _leaves(place),
        "services": _leaves({"domain": "amazonaws.com", "partition": "aws"}),
        **_tags(instance),
        **_spot(instance),
    }
    if role:
        tree["iam"] = {
            "info": lambda: _profile_info(instance),
            "security-credentials": {role: lambda: _role_credentials(credentials())},
        }
    return tree


def _leaves(texts: Mapping[str, str]) -> Tree:
    return {name: (lambda text=text: text) for name, text in texts.items()}  # type: ignore[misc]


def _recommendations(instance: Instance) -> Tree:
    if instance.rebalance_at is None:
        return {}
    told = json.dumps({"noticeTime": day_and_second(instance.rebalance_at)})
    return {"recommendations": _leaves({"rebalance": told})}


def _spot(instance: Instance) -> Tree:
    notice = instance.notice
    if notice is None:
        return {}
    moment = day_and_second(notice.deadline)
    told = {"instance-action": json.dumps({"action": notice.action, "time": moment})}
    if notice.action == "terminate":
        told["termination-time"] = moment
    return {"spot": _leaves(told)}


def _tags(instance: Instance) -> Tree:
    if instance.blueprint.metadata.get("InstanceMetadataTags") != "enabled":
        return {}
    return {"tags": {"instance": _leaves(instance.tags)}}


def _identity(instance: Instance) -> str:
    plan, pool = instance.blueprint, instance.pool
    document = {
        "accountId": instance.owner,
        "architecture": catalogue.instance_types()[pool.instance_type].architecture,
        "availabilityZone": pool.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": plan.image_id,
        "instanceId": instance.instance_id,
        "instanceType": pool.instance_type,
        "kernelId": None,
        "pendingTime": day_and_second(instance.launched_at),
        "privateIp": instance.private_ip,
        "ramdiskId": None,
        "region": pool.region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)


def profile_arn(profile: str, account: str) -> str:
    """ARN of an instance profile that is given by name or ARN."""
    return profile if profile.startswith("arn:") else f"arn:aws:iam::{account}:instance-profile/{profile}"


def _profile_info(instance: Instance) -> str:
    info = {
        "Code": "Success",
        "LastUpdated": day_and_second(instance.launched_at),
        "InstanceProfileArn": profile_arn(instance.blueprint.profile, instance.owner),
        "InstanceProfileId": "AIPA" + instance.instance_id[2:].upper(),
    }
    return json.dumps(info, indent=2)


def _role_credentials(held: Mapping[str, Any]) -> str:
    told = {
        "Code": "Success",
        "LastUpdated": day_and_second(datetime.now(UTC).timestamp()),
        "Type": "AWS-HMAC",
        "AccessKeyId": held["AccessKeyId"],
        "SecretAccessKey": held["SecretAccessKey"],
        "Token": held["Token"],
        "Expiration": held["Expiration"],
    }
    return json.dumps(told, indent=2)
