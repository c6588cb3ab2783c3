"""Small things to put into an embedded cloud, and to find out about it."""

from __future__ import annotations

import base64
import io
import json
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spotrelay.console.demo.folder import built_assembly
from spotrelay.console.exits import NotReady
from spotrelay.localcloud.client import LocalCloud


def assembly_or_skip() -> Path:
    """The stack as it was built for this machine; a test without it is skipped, with the reason."""
    try:
        return built_assembly()
    except NotReady as error:
        pytest.skip(str(error))


def eventually(condition: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.05)


def role(cloud: LocalCloud, name: str, service: str, *statements: dict[str, Any]) -> str:
    """ARN of a new role that `service` and the account's root may take, with these rights and no others."""
    iam = cloud.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": service, "AWS": "arn:aws:iam::000000000000:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    if statements:
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=json.dumps(document))
    return str(arn)


def allow(*actions: str, on: str = "*", when: dict[str, Any] | None = None) -> dict[str, Any]:
    """A policy statement."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": on}
    return {**statement, "Condition": when} if when else statement


def as_role(cloud: LocalCloud, arn: str) -> dict[str, str]:
    """Credentials of a role, as keyword arguments of `LocalCloud.client`."""
    session = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }


def table(cloud: LocalCloud, name: str) -> str:
    """Name of a new table with pk and sk."""
    cloud.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def function(cloud: LocalCloud, name: str, code: str, role_arn: str, timeout_s: int = 10, **variables: str) -> str:
    """ARN of a new Lambda function whose `main.handler` is in `code`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", textwrap.dedent(code))
    created = cloud.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=role_arn,
        Handler="main.handler",
        Code={"ZipFile": packed.getvalue()},
        Timeout=timeout_s,
        Environment={"Variables": variables},
    )
    return str(created["FunctionArn"])


def called(cloud: LocalCloud, name: str, event: Any) -> tuple[Any, str | None]:
    """Call a function; what it returned, and the kind of its error if it failed."""
    answer = cloud.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return json.loads(answer["Payload"].read() or b"null"), answer.get("FunctionError")


def log_of(home: Path, function_name: str) -> str:
    """What a function has printed so far."""
    return "".join(log.read_text() for log in sorted((home / "logs").glob(f"lambda-{function_name}.*.log")))


TRAIN = """
#!/bin/bash
time_scale=1
exec {python} - <<'PYTHON'
import boto3
s3 = boto3.client("s3", region_name="us-east-1")
for name in ("shard", "commit", "after"):
    s3.put_object(Bucket="{bucket}", Key="runs/" + name, Body=b"x")
import time
time.sleep(600)
PYTHON
"""


def _user_data(bucket: str) -> str:
    script = textwrap.dedent(TRAIN).lstrip().format(python=sys.executable, bucket=bucket)
    return base64.b64encode(script.encode()).decode()


def prepare_ground(cloud: LocalCloud, name: str) -> dict[str, str]:
    """A bucket, and a launch template whose machines put three objects into it, one after the other."""
    cloud.client("s3").create_bucket(Bucket=name)
    role(cloud, name, "ec2.amazonaws.com", allow("s3:PutObject", on=f"arn:aws:s3:::{name}/runs/*"))
    data = {
        "ImageId": "ami-0123456789abcdef0",
        "InstanceType": "g5.xlarge",
        "UserData": _user_data(name),
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
