"""Rights are asked for with the resources and condition keys that EC2 gives, and refused in its words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

OURS = f"arn:aws:ec2:us-east-1:000000000000:launch-template/{kit.TEMPLATE}"
PROFILE = "arn:aws:iam::000000000000:instance-profile/machine"
ROLE = "arn:aws:iam::000000000000:role/machine-role"


def arn(kind: str, name: str = "*", account: str = "000000000000") -> str:
    return f"arn:aws:ec2:us-east-1:{account}:{kind}/{name}"


def launcher_rights(cloud: Standalone) -> dict[str, dict[str, Any]]:
    """The least that a control plane needs, by name."""
    tagged = {"StringEquals": {"aws:RequestTag/spotrelay:managed": "Stack"}}
    from_ours = {"ArnEquals": {"ec2:LaunchTemplate": OURS}}
    parts = [arn(kind) for kind in ("volume", "network-interface", "spot-instances-request")]
    subnets = [arn("subnet", name) for name in kit.subnets(cloud).values()]
    fixed = [arn("image", account=""), arn("security-group")]
    as_in_template = {**from_ours, "Bool": {"ec2:IsLaunchTemplateResource": "true"}}

    def allow(action: str, resources: list[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
        statement: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": resources}
        return {**statement, "Condition": condition} if condition else statement

    return {
        "fleet": allow("ec2:CreateFleet", [arn("fleet"), OURS, *subnets]),
        "fleet-instance": allow("ec2:CreateFleet", [arn("instance")], tagged),
        "instance": allow("ec2:RunInstances", [arn("instance")], {**from_ours, **tagged}),
        "parts": allow("ec2:RunInstances", [*parts, OURS, *subnets], from_ours),
        "fixed": allow("ec2:RunInstances", fixed, as_in_template),
        "tags": allow("ec2:CreateTags", [arn("instance")], {"StringEquals": {"ec2:CreateAction": "CreateFleet"}}),
        "pass": allow("iam:PassRole", [ROLE], {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}),
    }


@pytest.fixture
def ground(cloud: Standalone) -> Standalone:
    kit.template(cloud, IamInstanceProfile={"Arn": PROFILE}, SecurityGroupIds=["sg-1"])
    return cloud


def launched(cloud: Standalone, rights: dict[str, dict[str, Any]], **changes: Any) -> set[str]:
    """Launch with these rights; the error codes and what was missing, empty if it worked."""
    ec2 = kit.client(cloud, access_key=cloud.caller("control", *rights.values()))
    try:
        answer = ec2.create_fleet(**kit.fleet_request(cloud, **changes))
    except ec2.exceptions.ClientError as error:
        return {f"whole:{error.response['Error']['Code']}"}
    return {e["ErrorCode"] for e in answer["Errors"]}


def test_the_least_rights_are_enough(ground: Standalone) -> None:
    assert launched(ground, launcher_rights(ground)) == set()
    assert len(ground.ec2.instances()) == 1


@pytest.mark.parametrize(
    ("missing", "refused"),
    [
        ("fleet", "whole:UnauthorizedOperation"),
        ("fleet-instance", "whole:UnauthorizedOperation"),
        ("tags", "whole:UnauthorizedOperation"),
        ("instance", "UnauthorizedOperation"),
        ("parts", "UnauthorizedOperation"),
        ("fixed", "UnauthorizedOperation"),
        ("pass", "UnauthorizedOperation"),
    ],
)
def test_each_right_is_needed(ground: Standalone, missing: str, refused: str) -> None:
    rights = launcher_rights(ground)
    del rights[missing]

    assert launched(ground, rights) == {refused}
    assert ground.ec2.instances() == []


def test_another_stacks_tag_is_refused(ground: Standalone) -> None:
    tags = [{"ResourceType": "instance", "Tags": kit.pairs({**kit.TAGS, "spotrelay:managed": "Other"})}]

    assert launched(ground, launcher_rights(ground), TagSpecifications=tags) == {"whole:UnauthorizedOperation"}


def test_another_template_is_refused(ground: Standalone) -> None:
    ground.world.templates["lt-other"] = copy.deepcopy(ground.world.templates[kit.TEMPLATE])
    request = kit.fleet_request(ground)
    request["LaunchTemplateConfigs"][0]["LaunchTemplateSpecification"]["LaunchTemplateId"] = "lt-other"

    refused = launched(ground, launcher_rights(ground), LaunchTemplateConfigs=request["LaunchTemplateConfigs"])

    assert refused == {"whole:UnauthorizedOperation"}


def test_another_image_than_the_templates_is_refused(ground: Standalone) -> None:
    request = kit.fleet_request(ground)
    for override in request["LaunchTemplateConfigs"][0]["Overrides"]:
        override["ImageId"] = "ami-0fedcba9876543210"

    refused = launched(ground, launcher_rights(ground), LaunchTemplateConfigs=request["LaunchTemplateConfigs"])

    assert refused == {"UnauthorizedOperation"}


def test_a_subnet_that_is_not_listed_is_refused(ground: Standalone) -> None:
    rights = launcher_rights(ground)
    request = kit.fleet_request(ground)
    request["LaunchTemplateConfigs"][0]["Overrides"][0]["SubnetId"] = ground.world.add_subnet("us-east-1d")

    assert launched(ground, rights, LaunchTemplateConfigs=request["LaunchTemplateConfigs"]) == {
        "whole:UnauthorizedOperation"
    }


def test_only_machines_with_our_tag_may_be_ended(ground: Standalone) -> None:
    ours = kit.launch(ground)
    other = kit.launch(ground, TagSpecifications=[{"ResourceType": "instance", "Tags": kit.pairs({"a": "b"})}])
    condition = {"StringEquals": {"aws:ResourceTag/spotrelay:managed": "Stack"}}
    right = {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": arn("instance"), "Condition": condition}
    ec2 = kit.client(ground, access_key=ground.caller("ender", right))

    refused = kit.refusal(ec2.terminate_instances, InstanceIds=[ours, other])

    assert refused[:2] == ("UnauthorizedOperation", 403)
    assert "arn:aws:sts::000000000000:assumed-role/ender/session is not authorized to perform: " in refused[2]
    assert f"ec2:TerminateInstances on resource: {arn('instance', other)}" in refused[2]
    assert {kit.state(ground, i) for i in (ours, other)} <= {"pending", "running"}
    assert ec2.terminate_instances(InstanceIds=[ours])["TerminatingInstances"]


def test_tags_cannot_be_set_afterwards_with_the_right_to_set_them_at_launch(ground: Standalone) -> None:
    instance = kit.launch(ground)
    ec2 = kit.client(ground, access_key=ground.caller("tagger", launcher_rights(ground)["tags"]))

    refused = kit.refusal(ec2.create_tags, Resources=[instance], Tags=kit.pairs({"spotrelay:managed": "Mine"}))

    assert refused[0] == "UnauthorizedOperation"
    assert {"Key": "spotrelay:managed", "Value": "Stack"} in kit.seen(ground, instance)["Tags"]


def test_looking_needs_a_right_too_and_regions_can_be_forbidden(ground: Standalone) -> None:
    look = {
        "Effect": "Allow",
        "Action": "ec2:DescribeInstances",
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:RequestedRegion": "us-east-1"}},
    }
    key = ground.caller("looker", look)

    assert kit.client(ground, access_key=key).describe_instances()["Reservations"] == []
    assert kit.refusal(kit.client(ground, access_key=key).describe_tags)[0] == "UnauthorizedOperation"
    assert kit.refusal(kit.client(ground, "us-west-2", key).describe_instances)[0] == "UnauthorizedOperation"


def test_a_dry_run_tells_of_missing_rights(ground: Standalone) -> None:
    ec2 = kit.client(ground, access_key=ground.caller("nobody"))

    assert kit.refusal(ec2.create_fleet, **kit.fleet_request(ground), DryRun=True)[0] == "UnauthorizedOperation"
    assert (
        kit.refusal(
            ec2.run_instances, MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE}, DryRun=True
        )[0]
        == "UnauthorizedOperation"
    )


def test_run_instances_is_refused_as_a_whole(ground: Standalone) -> None:
    ec2 = kit.client(ground, access_key=ground.caller("control", *launcher_rights(ground).values()))

    refused = kit.refusal(ec2.run_instances, MinCount=1, MaxCount=1, ImageId="ami-1", InstanceType="g5.xlarge")

    assert refused[:2] == ("UnauthorizedOperation", 403)
    assert ground.ec2.instances() == []
