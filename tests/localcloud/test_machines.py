"""Machines of the emulated EC2 in their cloud: who they are, what they may, and being stopped between two moments."""

from __future__ import annotations

import base64
import json
import sys
import textwrap
from typing import Any

import pytest
from botocore.exceptions import ClientError

from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import allow, as_role, eventually, role

pytestmark = pytest.mark.loop

TRAIN = """
#!/bin/bash
exec {python} - <<'PYTHON'
import boto3
s3 = boto3.client("s3", region_name="us-east-1")
for name in ("shard", "commit", "after"):
    s3.put_object(Bucket="{bucket}", Key="runs/" + name, Body=b"x")
import time
time.sleep(600)
PYTHON
"""


def user_data(bucket: str) -> str:
    script = textwrap.dedent(TRAIN).lstrip().format(python=sys.executable, bucket=bucket)
    return base64.b64encode(script.encode()).decode()


@pytest.fixture
def ground(cloud: LocalCloud, name: str) -> dict[str, str]:
    """A bucket, and a launch template whose machines put three objects into it, one after the other."""
    cloud.client("s3").create_bucket(Bucket=name)
    role(cloud, name, "ec2.amazonaws.com", allow("s3:PutObject", on=f"arn:aws:s3:::{name}/runs/*"))
    data = {
        "ImageId": "ami-0123456789abcdef0",
        "InstanceType": "g5.xlarge",
        "UserData": user_data(name),
        "IamInstanceProfile": {"Arn": {"Fn::GetAtt": ["Profile", "Arn"]}},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
    }
    network = {"CidrBlock": "10.0.0.0/24", "VpcId": {"Ref": "Vpc"}, "AvailabilityZone": "us-east-1a"}
    resources = {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
        "Subnet": {"Type": "AWS::EC2::Subnet", "Properties": network},
        "Profile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [name]}},
        "Template": {"Type": "AWS::EC2::LaunchTemplate", "Properties": {"LaunchTemplateData": data}},
    }
    outputs = {key: {"Value": {"Ref": key}} for key in ("Subnet", "Template")}
    formation = cloud.client("cloudformation")
    formation.create_stack(
        StackName=name,
        TemplateBody=json.dumps({"Resources": resources, "Outputs": outputs}),
        Capabilities=["CAPABILITY_IAM"],
    )
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    told = formation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    return {"Bucket": name, **{output["OutputKey"]: output["OutputValue"] for output in told}}


def fleet(ground: dict[str, str]) -> dict[str, Any]:
    specification = {"LaunchTemplateId": ground["Template"], "Version": "1"}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": specification,
                "Overrides": [{"InstanceType": "g5.xlarge", "SubnetId": ground["Subnet"]}],
            }
        ],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
    }


def launch(cloud: LocalCloud, ground: dict[str, str]) -> str:
    """Launch one machine and give its id."""
    answer = cloud.client("ec2").create_fleet(**fleet(ground))
    return str(answer["Instances"][0]["InstanceIds"][0])


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
