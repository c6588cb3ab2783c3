"""Every error that this EC2 answers is one that EC2 documents, in EC2's form."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import spotrelay.localcloud.ec2
from spotrelay.localcloud.ec2.errors import CODES
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

PACKAGE = Path(spotrelay.localcloud.ec2.__file__).parent
CODE = re.compile(r"[A-Z][A-Za-z]+(\.[A-Z][A-Za-z]+)?")


def emitted() -> dict[str, str]:
    """Every code that the sources give to an `Ec2Error`, and where."""
    found = {}
    for path in PACKAGE.glob("*.py"):
        tree = ast.parse(path.read_text())
        named = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Ec2Error":
                given: Any = node.args[0]
                given = named.get(given.id, given) if isinstance(given, ast.Name) else given
                words = [n.value for n in ast.walk(given) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                found.update({word: f"{path.name}:{node.lineno}" for word in words if CODE.fullmatch(word)})
    return found


def test_every_code_in_the_sources_is_in_the_table() -> None:
    codes = emitted()

    assert len(codes) > 20
    assert {code: place for code, place in codes.items() if code not in CODES} == {}


def test_every_code_of_the_table_names_its_source() -> None:
    assert all(entry.source and 400 <= entry.status < 600 for entry in CODES.values())


def test_the_answers_of_every_refusal_below_are_as_documented(cloud: Standalone, ec2: Any) -> None:
    subnet = next(iter(kit.subnets(cloud).values()))
    kit.template(cloud)
    specification = {"LaunchTemplateId": kit.TEMPLATE}
    one: dict[str, Any] = {"MinCount": 1, "MaxCount": 1}
    run: dict[str, Any] = {**one, "LaunchTemplate": specification, "SubnetId": subnet}
    refused = {
        "DryRunOperation": (ec2.run_instances, {**run, "DryRun": True}),
        "InvalidClientToken": (ec2.run_instances, {**run, "ClientToken": "x" * 65}),
        "MissingParameter": (ec2.run_instances, {**one, "InstanceType": "g5.xlarge"}),
        "Unsupported": (ec2.run_instances, {**run, "InstanceType": "x1e.xlarge"}),
        "InvalidParameterValue": (ec2.run_instances, {**run, "MinCount": 2}),
        "InvalidParameterCombination": (ec2.run_instances, {**run, "Placement": {"AvailabilityZone": "us-east-1c"}}),
        "InvalidSubnetID.NotFound": (ec2.run_instances, {**run, "SubnetId": "subnet-none"}),
        "InvalidLaunchTemplateId.NotFound": (
            ec2.run_instances,
            {**run, "LaunchTemplate": {"LaunchTemplateId": "lt-none"}},
        ),
        "InvalidLaunchTemplateName.NotFoundException": (
            ec2.run_instances,
            {**run, "LaunchTemplate": {"LaunchTemplateName": "none"}},
        ),
        "InvalidLaunchTemplateId.VersionNotFound": (
            ec2.run_instances,
            {**run, "LaunchTemplate": {**specification, "Version": "7"}},
        ),
        "InvalidInstanceID.Malformed": (ec2.describe_instances, {"InstanceIds": ["i-123"]}),
        "InvalidInstanceID.NotFound": (ec2.terminate_instances, {"InstanceIds": ["i-0123456789abcdef0"]}),
        "InvalidInstanceType": (ec2.describe_instance_types, {"InstanceTypes": ["x1e.xlarge"]}),
        "InvalidID": (ec2.create_tags, {"Resources": ["ami-1"], "Tags": [{"Key": "a", "Value": "b"}]}),
        "InvalidFleetId.NotFound": (ec2.describe_fleets, {"FleetIds": ["fleet-none"]}),
        "InvalidSpotInstanceRequestID.NotFound": (
            ec2.describe_spot_instance_requests,
            {"SpotInstanceRequestIds": ["sir-none"]},
        ),
        "InvalidPaginationToken": (ec2.describe_instances, {"NextToken": "none"}),
        "FilterLimitExceeded": (
            ec2.describe_instances,
            {"Filters": [{"Name": "instance-id", "Values": [f"i-{n:08x}" for n in range(201)]}]},
        ),
        "UnsupportedOperation": (ec2.create_fleet, kit.fleet_request(cloud, Type="maintain")),
    }

    told = {code: kit.refusal(call, **arguments) for code, (call, arguments) in refused.items()}

    assert {code: (told[code][0], told[code][1]) for code in told} == {
        code: (code, CODES[code].status) for code in told
    }
    assert cloud.ec2.instances() == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"UserData": "not base64!"}, "InvalidUserData.Malformed"),
        ({"UserData": "QUFB" * 5462}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "missing"}}, "InvalidParameterValue"),
    ],
)
def test_a_template_with_what_cannot_be_launched_is_refused(cloud: Standalone, ec2: Any, data: Any, code: str) -> None:
    kit.template(cloud, None, **data)

    assert (
        kit.refusal(ec2.run_instances, MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE})[0]
        == code
    )


def test_tag_keys_that_ec2_reserves_are_refused(cloud: Standalone, ec2: Any) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "aws:mine", "Value": "x"}]}]

    assert kit.refusal(ec2.create_fleet, **kit.fleet_request(cloud, TagSpecifications=tags))[0] == (
        "InvalidParameterValue"
    )


def test_tag_keys_with_a_slash_are_refused_while_metadata_shows_tags(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(
        cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": kit.pairs({"a/b": "c"})}]
    )
    assert ec2.create_fleet(**request)["Instances"]

    kit.template(cloud, MetadataOptions={"InstanceMetadataTags": "enabled"})
    answer = ec2.create_fleet(**request)

    assert answer["Instances"] == []
    assert {error["ErrorCode"] for error in answer["Errors"]} == {"InvalidParameterValue"}
