"""Everything goes, whatever fails on the way; and nothing that is somebody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.interruption import Interruption
from tests.acceptance_aws.retained import empty
from tests.acceptance_aws.teardown import Teardown
from tests.acceptance_aws.watch import Clock
from tests.acceptance_aws_parts.fault_injection import FaultInjection

STACK = "SpotrelayTest-abc123"
KEY: Any = {
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
}


class CloudFormation:
    """A stack with a bucket and a table that it keeps, and a parameter that it does not."""

    def __init__(self) -> None:
        self.stacks: dict[str, str] = {}  # name to state
        self.resources = [("AWS::S3::Bucket", "kept-bucket"), ("AWS::DynamoDB::Table", "kept-table")]

    def create_stack(self, StackName: str) -> None:
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="kept-bucket")
        boto3.client("s3", region_name="us-east-1").put_bucket_versioning(
            Bucket="kept-bucket", VersioningConfiguration={"Status": "Enabled"}
        )
        boto3.client("dynamodb", region_name="us-east-1").create_table(
            TableName="kept-table", BillingMode="PAY_PER_REQUEST", **KEY
        )
        boto3.client("ssm", region_name="us-east-1").put_parameter(Name="/switch", Value="on", Type="String")
        self.stacks[StackName] = "CREATE_COMPLETE"

    def describe_stacks(self, StackName: str) -> dict[str, Any]:
        if self.stacks.get(StackName, "DELETE_COMPLETE") == "DELETE_COMPLETE":
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "DescribeStacks")
        outputs = [{"OutputKey": "Switch", "OutputValue": "/switch"}]
        stack = {"StackId": f"arn:{StackName}", "StackStatus": self.stacks[StackName], "Outputs": outputs}
        return {"Stacks": [stack]}

    def get_paginator(self, operation: str) -> CloudFormation:
        assert operation == "list_stack_resources"
        return self

    def paginate(self, StackName: str) -> list[dict[str, Any]]:
        found = [{"ResourceType": kind, "PhysicalResourceId": name} for kind, name in self.resources]
        return [{"StackResourceSummaries": [*found, {"ResourceType": "AWS::S3::Bucket"}]}]

    def delete_stack(self, StackName: str) -> None:
        self.stacks[StackName] = "DELETE_COMPLETE"


class Cloud:
    """An account with one stack of this test in it."""

    def __init__(self) -> None:
        self.fis = FaultInjection(lambda _: None)
        self.cloudformation = CloudFormation()
        self.said: list[str] = []
        self.switched: list[str] = []

    def client(self, service: str) -> Any:
        standing_in: dict[str, Any] = {"fis": self.fis, "cloudformation": self.cloudformation}
        make: Any = boto3.client
        return standing_in.get(service) or make(service, region_name="us-east-1")

    def deploy(self) -> None:
        self.cloudformation.create_stack(STACK)

    def destroy(self) -> None:
        self.switched.append(self.client("ssm").get_parameter(Name="/switch")["Parameter"]["Value"])
        self.cloudformation.delete_stack(STACK)

    def launch(self, stack: str) -> str:
        image = self.client("ec2").describe_images()["Images"][0]["ImageId"]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "spotrelay:managed", "Value": stack}]}]
        found = self.client("ec2").run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags)
        return str(found["Instances"][0]["InstanceId"])

    def state(self, instance_id: str) -> str:
        found = self.client("ec2").describe_instances(InstanceIds=[instance_id])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def rest(self) -> list[str]:
        buckets = [bucket["Name"] for bucket in self.client("s3").list_buckets()["Buckets"]]
        stacks = [name for name, state in self.cloudformation.stacks.items() if state != "DELETE_COMPLETE"]
        return [*buckets, *self.client("dynamodb").list_tables()["TableNames"], *stacks]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with mock_aws():
        yield Cloud()


def teardown(cloud: Cloud) -> Teardown:
    interruption = Interruption(cloud.fis, cloud.client("iam"), STACK, lambda _: None)
    clock = Clock(lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda _: None)
    return Teardown(STACK, cloud.client, cloud, interruption, clock, cloud.said.append)


def test_stack_machines_bucket_and_table_are_gone(cloud: Cloud) -> None:
    cloud.deploy()
    machine = cloud.launch(STACK)
    for body in (b"one", b"two"):
        cloud.client("s3").put_object(Bucket="kept-bucket", Key="runs/x", Body=body)
    cloud.client("s3").delete_object(Bucket="kept-bucket", Key="runs/x")

    assert teardown(cloud).run() == []

    assert cloud.rest() == []
    assert cloud.state(machine) == "terminated"


def test_launches_are_stopped_before_the_machines_are_ended(cloud: Cloud) -> None:
    cloud.deploy()

    teardown(cloud).run()

    assert cloud.switched == ["off"]
    names = [line.removeprefix("teardown: ") for line in cloud.said]
    assert names.index("stop every launch") < names.index("end every machine") < names.index("destroy the stack")


def test_an_empty_account_is_left_as_it_is(cloud: Cloud) -> None:
    assert teardown(cloud).run() == []


def test_it_may_be_done_twice(cloud: Cloud) -> None:
    cloud.deploy()

    assert teardown(cloud).run() == []
    assert teardown(cloud).run() == []


def test_what_is_somebody_elses_stays(cloud: Cloud) -> None:
    cloud.client("s3").create_bucket(Bucket="somebody-elses")
    theirs = cloud.launch("Spotrelay")
    cloud.deploy()

    assert teardown(cloud).run() == []

    assert cloud.rest() == ["somebody-elses"]
    assert cloud.state(theirs) == "running"


def test_a_stack_that_the_command_line_cannot_destroy_goes_all_the_same(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.deploy()
    monkeypatch.setattr(cloud, "destroy", failing(AcceptanceFailed("`npx cdk destroy` ended with status 1")))

    problems = teardown(cloud).run()

    assert cloud.rest() == []
    assert problems == ["could not destroy the stack: `npx cdk destroy` ended with status 1"]


@pytest.mark.parametrize("step", ["_stop_launches", "_end_machines", "_see_kept", "_destroy"])
def test_a_step_that_fails_does_not_keep_the_next_one_from_being_done(
    cloud: Cloud, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.deploy()
    down = teardown(cloud)
    monkeypatch.setattr(down, step, failing(RuntimeError("no luck")))

    problems = down.run()

    assert any("no luck" in problem for problem in problems)
    assert STACK not in cloud.rest()


def test_what_is_left_is_named_with_what_to_do(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.deploy()
    down = teardown(cloud)
    monkeypatch.setattr(down, "_delete_kept", failing(RuntimeError("no luck")))

    problems = down.run()

    assert "kept-bucket" in problems[-1] and f"--teardown {STACK}" in problems[-1]


def test_a_bucket_of_many_pages_is_emptied(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="many")
    s3.put_bucket_versioning(Bucket="many", VersioningConfiguration={"Status": "Enabled"})
    for number in range(1005):
        s3.put_object(Bucket="many", Key=f"{number}", Body=b"")
    s3.create_multipart_upload(Bucket="many", Key="half")

    empty(s3, "many")

    assert "Versions" not in s3.list_object_versions(Bucket="many")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="many")


def failing(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail
