"""A cloud assembly as the CDK writes it is deployed, patched, updated; and a broken one is explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spotrelay.localcloud import deploy
from spotrelay.localcloud.client import LocalCloud
from spotrelay.localcloud.deploy import DeployFailed
from tests.localcloud.kit import called, eventually

pytestmark = pytest.mark.loop

HANDLER = """
import os
def handler(event, context):
    return {"scale": os.environ["SPOTRELAY_TIME_SCALE"], "event": event}
"""


def service_role(service: str, *actions: str) -> dict[str, Any]:
    trust = [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]
    rights = [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": trust},
            "Policies": [{"PolicyName": "p", "PolicyDocument": {"Version": "2012-10-17", "Statement": rights}}],
        },
    }


def template(bucket: str, key: str) -> dict[str, Any]:
    """A small stack with one of everything that is patched."""
    return {
        "Parameters": {
            "BootstrapVersion": {
                "Type": "AWS::SSM::Parameter::Value<String>",
                "Default": "/cdk-bootstrap/hnb659fds/version",
            },
            "Image": {"Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", "Default": "/aws/service/none/ami-id"},
        },
        "Resources": {
            "WorkerRole": service_role("lambda.amazonaws.com", "sqs:SendMessage"),
            "CallerRole": service_role("scheduler.amazonaws.com", "lambda:InvokeFunction"),
            "Dead": {"Type": "AWS::SQS::Queue"},
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 300}},
            "Worker": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.13",
                    "Handler": "main.handler",
                    "Role": {"Fn::GetAtt": ["WorkerRole", "Arn"]},
                    "Code": {"S3Bucket": {"Fn::Sub": bucket}, "S3Key": key},
                    "Environment": {"Variables": {"SPOTRELAY_TIME_SCALE": "1"}},
                    "DeadLetterConfig": {"TargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}},
                    "ReservedConcurrentExecutions": 2,
                },
            },
            "Table": {
                "Type": "AWS::DynamoDB::Table",
                "Properties": {
                    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                    "BillingMode": "PAY_PER_REQUEST",
                    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
                },
            },
            "Sweep": {
                "Type": "AWS::Scheduler::Schedule",
                "Properties": {
                    "ScheduleExpression": "rate(1 minute)",
                    "FlexibleTimeWindow": {"Mode": "OFF"},
                    "Target": {
                        "Arn": {"Fn::GetAtt": ["Worker", "Arn"]},
                        "RoleArn": {"Fn::GetAtt": ["CallerRole", "Arn"]},
                        "Input": '{"sweep": true}',
                    },
                },
            },
        },
        "Outputs": {
            "Worker": {"Value": {"Ref": "Worker"}},
            "Table": {"Value": {"Ref": "Table"}},
            "Queue": {"Value": {"Ref": "Queue"}},
            "Sweep": {"Value": {"Ref": "Sweep"}},
            "Image": {"Value": {"Ref": "Image"}},
        },
    }


def write_assembly(folder: Path, stack: str) -> dict[str, Any]:
    """Write an assembly with one stack and one function's asset; the template, for a test to change and write again."""
    bucket = "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"
    (folder / "asset.code").mkdir(parents=True)
    (folder / "asset.code" / "main.py").write_text(HANDLER)
    destination = {"bucketName": bucket, "objectKey": f"{stack}-code.zip"}
    files = {
        "code": {"source": {"path": "asset.code", "packaging": "zip"}, "destinations": {"here": destination}},
        "template": {
            "source": {"path": f"{stack}.template.json", "packaging": "file"},
            "destinations": {"here": {"bucketName": bucket, "objectKey": f"{stack}.json"}},
        },
    }
    artifacts = {
        f"{stack}.assets": {"type": "cdk:asset-manifest", "properties": {"file": f"{stack}.assets.json"}},
        stack: {
            "type": "aws:cloudformation:stack",
            "environment": "aws://unknown-account/unknown-region",
            "properties": {"templateFile": f"{stack}.template.json"},
            "dependencies": [f"{stack}.assets"],
        },
    }
    written = template(bucket, f"{stack}-code.zip")
    (folder / f"{stack}.template.json").write_text(json.dumps(written))
    (folder / f"{stack}.assets.json").write_text(json.dumps({"files": files}))
    (folder / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    return written


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cloud at a twentieth of real time, with the small stack in it: the cloud, and the stack's outputs."""
    home = tmp_path_factory.mktemp("fast")
    write_assembly(home / "assembly", "Small")
    with LocalCloud(home / "cloud", time_scale=0.05) as running:
        yield running, running.deploy(home / "assembly")


def test_functions_run_from_their_assets_at_the_demos_pace(fast: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = fast

    answer, error = called(cloud, outputs["Worker"], {"x": 1})

    assert error is None
    assert answer == {"scale": "0.05", "event": {"x": 1}}


def test_what_the_emulator_drops_is_there_afterwards(fast: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = fast
    functions = cloud.client("lambda")

    configuration = functions.get_function_configuration(FunctionName=outputs["Worker"])
    reserved = functions.get_function_concurrency(FunctionName=outputs["Worker"])
    backups = cloud.client("dynamodb").describe_continuous_backups(TableName=outputs["Table"])

    assert configuration["DeadLetterConfig"]["TargetArn"].startswith("arn:aws:sqs:us-east-1:000000000000:Small-Dead")
    assert reserved["ReservedConcurrentExecutions"] == 2
    recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "ENABLED"


def test_queues_hand_out_again_at_the_demos_pace(fast: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = fast

    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=outputs["Queue"], AttributeNames=["All"])

    assert attributes["Attributes"]["VisibilityTimeout"] == "15"


def test_the_schedule_calls_its_target_with_its_own_input_under_its_own_role(
    fast: tuple[LocalCloud, dict[str, str]],
) -> None:
    cloud, _ = fast

    eventually(lambda: cloud.schedules()[0]["calls"] >= 2, "the ticker has called the target")
    ticks = [entry for entry in cloud.requests() if "/scheduler" in entry["caller"]]

    assert cloud.schedules()[0]["failures"] == 0
    assert {entry["status"] for entry in ticks} == {200}
    assert all("assumed-role/Small-CallerRole" in entry["caller"] for entry in ticks)


def test_the_deployed_schedule_itself_is_off(fast: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = fast

    schedule = cloud.client("scheduler").get_schedule(Name=outputs["Sweep"])

    assert schedule["State"] == "DISABLED"
    assert schedule["Target"]["Input"] == '{"sweep": true}'


def test_parameters_that_only_aws_publishes_get_a_placeholder(fast: tuple[LocalCloud, dict[str, str]]) -> None:
    _, outputs = fast

    assert outputs["Image"].startswith("ami-")


def test_deploying_again_updates_the_stack(cloud: LocalCloud, tmp_path: Path) -> None:
    changed = write_assembly(tmp_path, "Again")
    cloud.deploy(tmp_path)
    changed["Resources"]["Worker"]["Properties"]["Environment"]["Variables"]["MORE"] = "yes"
    (tmp_path / "Again.template.json").write_text(json.dumps(changed))

    outputs = cloud.deploy(tmp_path)

    configuration = cloud.client("lambda").get_function_configuration(FunctionName=outputs["Worker"])
    assert configuration["Environment"]["Variables"]["MORE"] == "yes"
    assert configuration["Environment"]["Variables"]["SPOTRELAY_TIME_SCALE"] == "1"


def test_deploying_the_same_again_changes_nothing_and_is_no_error(cloud: LocalCloud, tmp_path: Path) -> None:
    write_assembly(tmp_path, "Same")

    assert cloud.deploy(tmp_path) == cloud.deploy(tmp_path)


def test_a_folder_that_is_no_assembly_is_told_so(cloud: LocalCloud, tmp_path: Path) -> None:
    with pytest.raises(DeployFailed, match=re.escape("no manifest.json")):
        cloud.deploy(tmp_path)


def test_a_missing_asset_is_named(cloud: LocalCloud, tmp_path: Path) -> None:
    write_assembly(tmp_path, "Lacking")
    (tmp_path / "asset.code" / "main.py").unlink()
    (tmp_path / "asset.code").rmdir()

    with pytest.raises(DeployFailed, match=re.escape("asset.code")):
        cloud.deploy(tmp_path)


def test_a_template_with_an_unknown_kind_of_resource_is_refused_by_that_name(cloud: LocalCloud, tmp_path: Path) -> None:
    broken = write_assembly(tmp_path, "Broken")
    broken["Resources"]["Odd"] = {"Type": "AWS::Nowhere::Thing", "Properties": {}}
    (tmp_path / "Broken.template.json").write_text(json.dumps(broken))

    with pytest.raises(DeployFailed, match="AWS::Nowhere::Thing"):
        cloud.deploy(tmp_path)


def test_a_resource_that_cannot_be_made_is_named_with_the_reason(cloud: LocalCloud, tmp_path: Path, name: str) -> None:
    broken = write_assembly(tmp_path, "Failing")
    cloud.client("ssm").put_parameter(Name=name, Value="taken", Type="String")
    wanted = {"Name": name, "Value": "mine", "Type": "String"}
    broken["Resources"]["Odd"] = {"Type": "AWS::SSM::Parameter", "Properties": wanted}
    (tmp_path / "Failing.template.json").write_text(json.dumps(broken))

    with pytest.raises(DeployFailed, match=r"Odd \(AWS::SSM::Parameter\): .*already exists"):
        cloud.deploy(tmp_path)


def test_a_stack_that_the_assembly_does_not_have_is_told_with_those_that_it_has(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    write_assembly(tmp_path, "Only")

    with pytest.raises(DeployFailed, match="Only"):
        cloud.deploy(tmp_path, stack="Other")


def test_a_folder_asset_is_packed_the_same_each_time(tmp_path: Path) -> None:
    write_assembly(tmp_path, "Packed")
    source = {"path": "asset.code", "packaging": "zip"}

    first = deploy._asset_body(tmp_path, source)
    (tmp_path / "asset.code" / "main.py").touch()

    assert deploy._asset_body(tmp_path, source) == first
