"""Small things to launch machines with, and to find out about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from spotrelay.localcloud.ec2.standalone import Standalone

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
TEMPLATE = "lt-0123456789abcdef0"
TAGS = {"spotrelay:managed": "Stack", "spotrelay:run": "story"}
NO_RETRIES = Config(retries={"mode": "standard", "total_max_attempts": 1})


def eventually(condition: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.01)


def client(cloud: Standalone, region: str = "us-east-1", access_key: str = "AKIAROOT") -> Any:
    """A real boto3 client without retries."""
    return boto3.client("ec2", config=NO_RETRIES, **cloud.client_arguments(region, access_key))


def subnets(cloud: Standalone) -> dict[str, str]:
    """A subnet for each zone, by zone."""
    known = {subnet["AvailabilityZone"]: name for name, subnet in cloud.world.subnets.items()}
    return {zone: known.get(zone) or cloud.world.add_subnet(zone) for zone in ZONES}


def template(cloud: Standalone, script: str | bytes | None = "#!/bin/bash\nsleep 600\n", **data: Any) -> str:
    """A launch template with this user data; replaces the one before."""
    return cloud.world.add_template(TEMPLATE, script, **data)


def pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def fleet_request(cloud: Standalone, **changes: Any) -> dict[str, Any]:
    """An instant fleet of one Spot machine with a pool in each zone, preferred in their order."""
    if TEMPLATE not in cloud.world.templates:
        template(cloud)
    overrides = [
        {"InstanceType": "g5.xlarge", "SubnetId": subnet, "Priority": float(rank)}
        for rank, subnet in enumerate(subnets(cloud).values())
    ]
    request: dict[str, Any] = {
        "Type": "instant",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
        "SpotOptions": {"AllocationStrategy": "capacity-optimized-prioritized"},
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": TEMPLATE, "Version": "1"},
                "Overrides": overrides,
            }
        ],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": pairs(TAGS)}],
    }
    return {**request, **changes}


def launch(cloud: Standalone, **changes: Any) -> str:
    """Launch one machine by a fleet and give its id."""
    answer = client(cloud).create_fleet(**fleet_request(cloud, **changes))
    return str(answer["Instances"][0]["InstanceIds"][0])


def seen(cloud: Standalone, instance_id: str) -> dict[str, Any]:
    """The instance, from the emulation's own books and the process table."""
    return next(i for i in cloud.ec2.instances() if i["InstanceId"] == instance_id)


def state(cloud: Standalone, instance_id: str) -> str:
    """Its state."""
    return str(seen(cloud, instance_id)["State"]["Name"])


def running(cloud: Standalone, instance_id: str) -> list[int]:
    """Wait until the instance has processes; their ids."""
    return list(eventually(lambda: seen(cloud, instance_id)["alive_processes"], f"{instance_id} runs"))


def terminated(cloud: Standalone, instance_id: str) -> None:
    """Wait until EC2 says so."""
    eventually(lambda: state(cloud, instance_id) == "terminated", f"{instance_id} is terminated")


def says(cloud: Standalone, instance_id: str, text: str) -> str:
    """Wait until the console holds the text; the console."""
    return str(
        eventually(
            lambda: text in cloud.ec2.console(instance_id) and cloud.ec2.console(instance_id),
            f"{text} on the console: {cloud.ec2.console(instance_id)}",
        )
    )


def states_told(cloud: Standalone, instance_id: str) -> list[str]:
    """What the events said, in their order: the state, or the first words of another kind of event."""
    return [e["detail"].get("state") or str(e["detail-type"]) for e in cloud.world.events(instance_id)]


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, int, str]:
    """Code, HTTP status and message with which EC2 refuses a call."""
    try:
        call(**arguments)
    except ClientError as error:
        told: Any = error.response
        assert told["ResponseMetadata"]["RequestId"]
        return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"], told["Error"]["Message"]
    raise AssertionError("the call was not refused")
