"""Machines of the emulated EC2 in their cloud: who they are, what they may, and being stopped between two moments."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import allow, as_role, eventually, fleet, launch, prepare_ground, role

pytestmark = pytest.mark.loop


@pytest.fixture
def ground(cloud: LocalCloud, name: str) -> dict[str, str]:
    """A bucket of its own, and a launch template whose machines fill it."""
    return prepare_ground(cloud, name)


def objects(cloud: LocalCloud, ground: dict[str, str]) -> set[str]:
    found = cloud.client("s3").list_objects_v2(Bucket=ground["Bucket"]).get("Contents", [])
    return {item["Key"].removeprefix("runs/") for item in found}


def state(cloud: LocalCloud, instance: str) -> str:
    reservations = cloud.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"]
    return str(reservations[0]["Instances"][0]["State"]["Name"])


def commit_of(ground: dict[str, str]) -> dict[str, str]:
    return {"service": "s3", "action": "PutObject", "target": f"{ground['Bucket']}/runs/commit"}


def entry_of(cloud: LocalCloud, ground: dict[str, str]) -> dict[str, Any]:
    entries = [e for e in cloud.requests() if e["target"] == f"{ground['Bucket']}/runs/commit"]
    return entries[0]


def test_a_machine_works_with_its_roles_rights_and_the_log_names_it(cloud: LocalCloud, ground: dict[str, str]) -> None:
    instance = launch(cloud, ground)

    eventually(lambda: objects(cloud, ground) == {"shard", "commit", "after"}, "the machine has put its objects")
    entry = entry_of(cloud, ground)
    cloud.client("ec2").terminate_instances(InstanceIds=[instance])

    assert entry["instance_id"] == instance
    assert entry["caller"].endswith(f"assumed-role/{ground['Bucket']}/{instance}")


def test_launching_needs_the_right_to_launch(cloud: LocalCloud, ground: dict[str, str], name: str) -> None:
    powerless = role(cloud, f"{name}-powerless", "lambda.amazonaws.com", allow("ec2:DescribeInstances"))
    ec2 = cloud.client("ec2", **as_role(cloud, powerless))

    ec2.describe_instances()
    with pytest.raises(ClientError) as refused:
        ec2.create_fleet(**fleet(ground))

    assert refused.value.response["Error"]["Code"] == "UnauthorizedOperation"
    assert objects(cloud, ground) == set()


def test_killed_before_a_request_is_applied_it_never_is(cloud: LocalCloud, ground: dict[str, str]) -> None:
    number = cloud.when(commit_of(ground), {"what": "kill-group", "moment": "before"})

    instance = launch(cloud, ground)

    assert cloud.await_trigger(number)["fired"]
    eventually(lambda: state(cloud, instance) in ("shutting-down", "terminated"), "EC2 knows of the end")
    eventually(lambda: any(e["target"].endswith("runs/commit") for e in cloud.requests()), "the request is logged")
    assert objects(cloud, ground) == {"shard"}
    assert (entry_of(cloud, ground)["status"], entry_of(cloud, ground)["error"]) == (None, "NeverApplied")


def test_killed_after_a_request_was_applied_it_never_hears_of_it(cloud: LocalCloud, ground: dict[str, str]) -> None:
    number = cloud.when(commit_of(ground), {"what": "kill-group", "moment": "after"})

    instance = launch(cloud, ground)

    assert cloud.await_trigger(number)["fired"]
    eventually(lambda: state(cloud, instance) in ("shutting-down", "terminated"), "EC2 knows of the end")
    assert objects(cloud, ground) == {"shard", "commit"}
    entry = eventually(lambda: entry_of(cloud, ground), "the request is logged")
    assert (entry["status"], entry["error"]) == (200, "ReplyLost")


def test_stopped_before_a_request_it_is_applied_when_the_machine_wakes(
    cloud: LocalCloud, ground: dict[str, str]
) -> None:
    number = cloud.when(commit_of(ground), {"what": "stop-group", "moment": "before"})
    instance = launch(cloud, ground)
    assert cloud.await_trigger(number)["fired"]

    cloud.zombify(instance)
    eventually(lambda: state(cloud, instance) == "terminated", "EC2 says that it is terminated")
    while_stopped = objects(cloud, ground)
    cloud.wake(instance)

    eventually(lambda: objects(cloud, ground) == {"shard", "commit", "after"}, "the zombie's request is applied")
    cloud.kill(instance)
    assert while_stopped == {"shard"}
    assert entry_of(cloud, ground)["held_s"] > 0


def test_stopped_after_a_request_the_reply_waits_until_the_machine_wakes(
    cloud: LocalCloud, ground: dict[str, str]
) -> None:
    number = cloud.when(commit_of(ground), {"what": "stop-group", "moment": "after"})
    instance = launch(cloud, ground)
    assert cloud.await_trigger(number)["fired"]

    eventually(lambda: objects(cloud, ground) == {"shard", "commit"}, "the request is applied")
    cloud.continue_group(instance)

    eventually(lambda: objects(cloud, ground) == {"shard", "commit", "after"}, "the reply has come")
    cloud.kill(instance)
    assert entry_of(cloud, ground)["held_s"] > 0


def test_a_stopped_machine_that_dies_ends_its_held_request(cloud: LocalCloud, ground: dict[str, str]) -> None:
    number = cloud.when(commit_of(ground), {"what": "stop-group", "moment": "before"})
    instance = launch(cloud, ground)
    assert cloud.await_trigger(number)["fired"]

    cloud.kill(instance)

    eventually(lambda: [e for e in cloud.requests() if e["target"].endswith("commit")], "the request is logged")
    assert objects(cloud, ground) == {"shard"}


def test_expired_credentials_are_refused_and_the_next_ones_work(cloud: LocalCloud, ground: dict[str, str]) -> None:
    number = cloud.when(
        {"service": "s3", "target": f"{ground['Bucket']}/runs/shard"}, {"what": "stop-group", "moment": "after"}
    )
    instance = launch(cloud, ground)
    assert cloud.await_trigger(number)["fired"]

    cloud.expire_credentials(instance)
    cloud.continue_group(instance)

    refused = eventually(
        lambda: [e for e in cloud.requests() if e["target"].endswith("runs/commit") and e["instance_id"] == instance],
        "the next request is logged",
    )[0]
    cloud.kill(instance)
    assert refused["error"] in ("ExpiredToken", "ExpiredTokenException")
