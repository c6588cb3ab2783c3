"""The stack that goes to AWS, deployed here: it stands, its functions start, and every patch finds what it changes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import called, eventually, log_of

pytestmark = pytest.mark.loop

SCALE = 0.05
FUNCTIONS = ("InterruptionsFunction", "RunsFunction", "SweepFunction")


STRANGER = {
    "version": "0",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "000000000000",
    "time": "2026-11-23T12:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:ec2:us-east-1:000000000000:instance/i-0123456789abcdef0"],
    "detail": {"instance-id": "i-0123456789abcdef0", "state": "terminated"},
}
"""An event of an instance that is nobody's."""


def left(cloud: LocalCloud, url: str) -> int:
    """Messages in a queue, those being worked on included."""
    counted = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(counted))["Attributes"]
    return sum(int(attributes[name]) for name in counted)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, dict[str, str]]]:
    """A cloud with the project's own stack, and the stack's outputs."""
    out = tmp_path_factory.mktemp("assembly") / "cdk.out"
    build = [sys.executable, "-m", "infra.assembly", "--out", str(out), "--arch", "host", "--python", "host"]
    subprocess.run(build, check=True, cwd=Path(__file__).parents[2], capture_output=True)
    with LocalCloud(tmp_path_factory.mktemp("real"), time_scale=SCALE) as cloud:
        yield cloud, cloud.deploy(out)


def test_every_function_starts_from_its_asset_and_may_do_what_it_needs(
    deployed: tuple[LocalCloud, dict[str, str]],
) -> None:
    cloud, outputs = deployed

    for name in ("Interruptions", "Runs"):
        event = {**STRANGER, "id": name}
        cloud.client("sqs").send_message(QueueUrl=outputs[f"{name}QueueUrl"], MessageBody=json.dumps(event))
    _, error = called(cloud, outputs["SweepFunction"], {})
    urls = [outputs[f"{name}QueueUrl"] for name in ("Interruptions", "Runs")]
    eventually(lambda: [left(cloud, url) for url in urls] == [0, 0], "both queues are empty")

    assert error is None
    assert [e for e in cloud.requests() if e["status"] in (401, 403)] == []
    assert "[ERROR]" not in "".join(log_of(cloud.home, outputs[name]) for name in FUNCTIONS)


def test_every_clock_is_scaled(deployed: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = deployed
    functions, queues = cloud.client("lambda"), cloud.client("sqs")

    scales = {
        functions.get_function_configuration(FunctionName=outputs[name])["Environment"]["Variables"][
            "SPOTRELAY_TIME_SCALE"
        ]
        for name in FUNCTIONS
    }
    timeouts = {
        queues.get_queue_attributes(QueueUrl=outputs[name], AttributeNames=["All"])["Attributes"]["VisibilityTimeout"]
        for name in ("RunsQueueUrl", "InterruptionsQueueUrl")
    }

    assert scales == {repr(SCALE)}
    assert all(int(timeout) <= 60 for timeout in timeouts)
    assert cloud.schedules()[0]["every_s"] == pytest.approx(60 * SCALE)


def test_a_machine_of_the_stack_boots_into_its_script_at_the_demos_pace(
    deployed: tuple[LocalCloud, dict[str, str]],
) -> None:
    cloud, outputs = deployed
    place = json.loads(outputs["Places"])["us-east-1"]
    zone, subnet = next(iter(place["subnets"].items()))
    ec2 = cloud.client("ec2")

    instance = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": place["launch_template"], "Version": place["version"]},
        InstanceType="g5.xlarge",
        SubnetId=subnet,
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]
    script = Path(cloud.instances()[0]["home"]) / "user-data"
    eventually(script.exists, "the machine has its user data")
    text = script.read_text()
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])

    assert instance["Placement"]["AvailabilityZone"] == zone
    assert f"\ntime_scale={SCALE!r}\n" in text
    assert "@" + "TABLE@" not in text
    assert outputs["Table"] in text


def test_the_template_itself_is_deployed_unchanged(deployed: tuple[LocalCloud, dict[str, str]]) -> None:
    cloud, outputs = deployed
    place = json.loads(outputs["Places"])["us-east-1"]

    versions = cloud.client("ec2").describe_launch_template_versions(LaunchTemplateId=place["launch_template"])
    data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]

    assert "\ntime_scale=1\n" in base64.b64decode(data["UserData"]).decode()


def test_deploying_the_stack_again_is_no_error(
    deployed: tuple[LocalCloud, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cloud, outputs = deployed
    assembly = next(tmp_path_factory.getbasetemp().glob("assembly*")) / "cdk.out"

    assert cloud.deploy(assembly) == outputs
