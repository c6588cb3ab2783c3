"""What each role may do and, more to the point, what it may not; asked of the template's own policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from handlers import settings
from spotrelay.localcloud.policy import evaluate
from tests.infra.conftest import Synthesise
from tests.infra.reading import ACCOUNT, REGION, Template, statements

CONTROL = ("InterruptionsWorker", "RunsWorker", "SweepWorker")
OURS, OTHERS = "Spotrelay", "SomebodyElse"
IMAGE = f"arn:aws:ec2:{REGION}::image/ami-0123456789abcdef0"


class Role:
    """One role of a template, asked what it may do."""

    def __init__(self, template: Template, name: str) -> None:
        self.template = template
        self.policies = template.policies(name)

    def may(self, action: str, resource: str, context: Mapping[str, Any] | None = None) -> bool:
        return bool(evaluate(self.policies, action, resource, dict(context or {})).allowed)


@pytest.fixture(params=CONTROL)
def control(request: pytest.FixtureRequest, home: Template) -> Role:
    """Each function's role in turn."""
    return Role(home, request.param)


@pytest.fixture
def instance(home: Template) -> Role:
    """The role of every machine."""
    return Role(home, "IdentityRole")


def functions(template: Template) -> list[dict[str, Any]]:
    """Every function that has an environment of ours."""
    found = template.of("AWS::Lambda::Function").values()
    return [function for function in found if "Variables" in function.get("Environment", {})]


def ec2(kind: str, name: str, region: str = REGION) -> str:
    return f"arn:aws:ec2:{region}:{ACCOUNT}:{kind}/{name}"


def template_arn(home: Template) -> str:
    return ec2("launch-template", home.name("AWS::EC2::LaunchTemplate", "Launchpad"))


def subnet_arn(home: Template) -> str:
    return ec2("subnet", home.name("AWS::EC2::Subnet", "LaunchpadGroundSubnet1"))


def launched(template: str, managed: str | None = OURS) -> dict[str, Any]:
    context: dict[str, Any] = {"ec2:LaunchTemplate": template, "ec2:IsLaunchTemplateResource": "true"}
    if managed is not None:
        context |= {"aws:RequestTag/spotrelay:managed": managed, "aws:TagKeys": ["spotrelay:managed", "Name"]}
    return context


# The control plane launches …


def test_a_launch_as_the_handlers_send_it_is_allowed(control: Role, home: Template) -> None:
    template = template_arn(home)
    group = ec2("security-group", home.name("AWS::EC2::SecurityGroup", "Launchpad"))
    parts = [ec2(kind, "*") for kind in ("volume", "network-interface", "spot-instances-request")]
    parts.append(ec2("placement-group", "close"))

    for resource in (ec2("fleet", "fleet-1"), template, subnet_arn(home)):
        assert control.may("ec2:CreateFleet", resource), resource
    assert control.may("ec2:CreateFleet", ec2("instance", "*"), launched(template))
    for resource in (ec2("instance", "*"), *parts, template, subnet_arn(home), group, IMAGE):
        assert control.may("ec2:RunInstances", resource, launched(template)), resource


@pytest.mark.parametrize("action", ["ec2:RunInstances", "ec2:CreateFleet"])
@pytest.mark.parametrize("managed", [None, OTHERS, "", "spotrelay"])
def test_no_machine_is_launched_without_our_tag(
    control: Role, home: Template, action: str, managed: str | None
) -> None:
    assert not control.may(action, ec2("instance", "*"), launched(template_arn(home), managed))


def test_no_machine_is_launched_from_another_template_or_from_none(control: Role) -> None:
    other = ec2("launch-template", "lt-0000000000000bad0")

    assert not control.may("ec2:CreateFleet", other)
    assert not control.may("ec2:RunInstances", ec2("instance", "*"), launched(other))
    without = {"aws:RequestTag/spotrelay:managed": OURS}
    for resource in (ec2("instance", "*"), ec2("volume", "*"), IMAGE, ec2("security-group", "sg-1")):
        assert not control.may("ec2:RunInstances", resource, without), resource


@pytest.mark.parametrize("kind", ["image", "security-group"])
def test_image_and_group_come_from_the_template_and_not_from_the_request(
    control: Role, home: Template, kind: str
) -> None:
    group = ec2("security-group", home.name("AWS::EC2::SecurityGroup", "Launchpad"))
    resource = IMAGE if kind == "image" else group
    context = launched(template_arn(home))

    assert control.may("ec2:RunInstances", resource, context)
    assert not control.may("ec2:RunInstances", resource, {**context, "ec2:IsLaunchTemplateResource": "false"})
    del context["ec2:IsLaunchTemplateResource"]
    assert not control.may("ec2:RunInstances", resource, context)


def test_machines_go_into_capacity_reservations_from_our_template_only(control: Role, home: Template) -> None:
    reservation = ec2("capacity-reservation", "cr-0123456789abcdef0")

    assert control.may("ec2:RunInstances", reservation, launched(template_arn(home)))
    assert not control.may("ec2:RunInstances", reservation, launched(ec2("launch-template", "lt-0bad")))
    for action in ("CreateCapacityReservation", "CancelCapacityReservation", "PurchaseCapacityBlock"):
        assert not control.may(f"ec2:{action}", reservation), action


def test_no_machine_is_launched_into_a_subnet_or_a_region_that_is_not_ours(control: Role, home: Template) -> None:
    context = launched(template_arn(home))

    assert not control.may("ec2:RunInstances", ec2("subnet", "subnet-0bad"), context)
    assert not control.may("ec2:RunInstances", ec2("instance", "*", "ap-south-1"), context)
    assert not control.may("ec2:RunInstances", ec2("key-pair", "mine"), context)


# … tags and ends …


def test_machines_are_tagged_while_they_are_made_and_never_afterwards(control: Role) -> None:
    machine = ec2("instance", "i-0123456789abcdef0")

    assert control.may("ec2:CreateTags", machine, {"ec2:CreateAction": "CreateFleet"})
    assert not control.may("ec2:CreateTags", machine)
    assert not control.may("ec2:CreateTags", machine, {"ec2:CreateAction": "CreateVolume"})
    assert not control.may("ec2:DeleteTags", machine)


@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        ({"aws:ResourceTag/spotrelay:managed": OURS}, True),
        ({"aws:ResourceTag/spotrelay:managed": OTHERS}, False),
        ({"aws:ResourceTag/Name": OURS}, False),
        ({}, False),
    ],
)
def test_only_machines_with_our_tag_are_ended(control: Role, tags: dict[str, str], allowed: bool) -> None:
    assert control.may("ec2:TerminateInstances", ec2("instance", "i-0123456789abcdef0"), tags) is allowed


def test_one_role_is_passed_on_and_to_ec2_only(control: Role, home: Template) -> None:
    instance_role = home.arn("AWS::IAM::Role", "IdentityRole")
    to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}

    assert control.may("iam:PassRole", instance_role, to_ec2)
    assert not control.may("iam:PassRole", instance_role, {"iam:PassedToService": "lambda.amazonaws.com"})
    assert not control.may("iam:PassRole", instance_role)
    assert not control.may("iam:PassRole", home.arn("AWS::IAM::Role", "RunsWorker"), to_ec2)


# … and keeps its hands off everything else.


def test_the_control_plane_reads_checkpoints_and_writes_none(control: Role, home: Template) -> None:
    bucket = home.arn("AWS::S3::Bucket", "VaultBucket")
    key = f"{bucket}/runs/a/shards/000001/000001/0000-0000-aa.safetensors"

    assert control.may("s3:ListBucketVersions", bucket, {"s3:prefix": "runs/a/"})
    assert control.may("s3:GetObject", key)
    assert control.may("s3:GetObjectVersion", key)
    for action in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:PutBucketPolicy"):
        assert not control.may(action, key), action
    assert not control.may("s3:GetObject", f"{bucket}/code/secret.tar.gz")


@pytest.mark.parametrize(
    ("worker", "allowed"), [("RunsWorker", True), ("SweepWorker", True), ("InterruptionsWorker", False)]
)
def test_two_functions_delete_versions_of_checkpoints_and_nothing_else(
    home: Template, worker: str, allowed: bool
) -> None:
    role, bucket = Role(home, worker), home.arn("AWS::S3::Bucket", "VaultBucket")
    table = home.arn("AWS::DynamoDB::Table", "Store")

    for kind in ("shards", "manifests", "parts"):
        key = f"{bucket}/runs/a/{kind}/000001/000001/x"
        assert role.may("s3:DeleteObjectVersion", key) is allowed
        assert not role.may("s3:DeleteObject", key)
    for other in ("runs/a/logs/1.log", "code/0.tar.gz", "shards/x", ""):
        assert not role.may("s3:DeleteObjectVersion", f"{bucket}/{other}")
    for keys in (["RUN#a"], ["LIVE#a"], ["LIVE#a", "RUN#a"]):
        assert role.may("dynamodb:DeleteItem", table, {"dynamodb:LeadingKeys": keys}) is allowed
    for context in ({}, {"dynamodb:LeadingKeys": ["INSTANCE#i-1"]}, {"dynamodb:LeadingKeys": ["BUDGET#2026-01-05#03"]}):
        assert not role.may("dynamodb:DeleteItem", table, context)


def test_the_control_plane_never_scans_deletes_or_reaches_another_table(control: Role, home: Template) -> None:
    table = home.arn("AWS::DynamoDB::Table", "Store")

    for action in ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "ConditionCheckItem"):
        assert control.may(f"dynamodb:{action}", table), action
    assert control.may("dynamodb:Query", f"{table}/index/due")
    for action in ("Scan", "DeleteItem", "DeleteTable", "UpdateTable", "BatchWriteItem"):
        assert not control.may(f"dynamodb:{action}", table), action
    assert not control.may("dynamodb:Query", f"{table}x")
    assert not control.may("dynamodb:Scan", f"{table}/index/due")


def test_the_control_plane_reads_the_switch_and_cannot_turn_it(control: Role) -> None:
    switch = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/Spotrelay/launches"

    assert control.may("ssm:GetParameter", switch)
    assert not control.may("ssm:PutParameter", switch)
    assert not control.may("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay/token")


def test_the_control_plane_speaks_to_users_and_never_as_an_instance(control: Role, home: Template) -> None:
    bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/Spotrelay"

    assert control.may("events:PutEvents", bus, {"events:source": "spotrelay.run"})
    assert not control.may("events:PutEvents", bus, {"events:source": "spotrelay"})
    assert not control.may("events:PutEvents", bus)


def test_functions_send_to_the_queue_of_runs_and_to_no_other(control: Role, home: Template) -> None:
    assert control.may("sqs:SendMessage", home.arn("AWS::SQS::Queue", "RunsQueue"))
    assert not control.may("sqs:SendMessage", home.arn("AWS::SQS::Queue", "InterruptionsQueue"))


# An instance.


@pytest.mark.parametrize("action", ["GetItem", "Query"])
@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        (["RUN#a"], True),
        (["LIVE#a"], True),
        (["LIVE#a", "RUN#a"], True),
        (["INSTANCE#i-1"], False),
        (["LIVE#a", "INSTANCE#i-1"], False),
        (["BUDGET#2026-01-05#03"], False),
        (None, False),
    ],
)
def test_an_instance_reads_runs_and_what_lives_beside_them(
    instance: Role, home: Template, action: str, keys: list[str] | None, allowed: bool
) -> None:
    context = {} if keys is None else {"dynamodb:LeadingKeys": keys}

    assert instance.may(f"dynamodb:{action}", home.arn("AWS::DynamoDB::Table", "Store"), context) is allowed


@pytest.mark.parametrize("action", ["PutItem", "UpdateItem", "ConditionCheckItem"])
@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        (["LIVE#a"], True),
        (["RUN#a"], False),
        (["LIVE#a", "RUN#a"], False),
        (["XLIVE#a"], False),
        (["BUDGET#2026-01-05#03"], False),
        (None, False),
    ],
)
def test_an_instance_writes_only_what_lives_beside_runs(
    instance: Role, home: Template, action: str, keys: list[str] | None, allowed: bool
) -> None:
    context = {} if keys is None else {"dynamodb:LeadingKeys": keys}

    assert instance.may(f"dynamodb:{action}", home.arn("AWS::DynamoDB::Table", "Store"), context) is allowed


def test_an_instance_adds_to_runs_and_never_deletes_or_touches_code(instance: Role, home: Template) -> None:
    bucket = home.arn("AWS::S3::Bucket", "VaultBucket")

    assert instance.may("s3:GetObject", f"{bucket}/code/{'0' * 64}.tar.gz")
    assert instance.may("s3:GetObjectVersion", f"{bucket}/runs/a/manifests/000001/000001.json")
    assert instance.may("s3:PutObject", f"{bucket}/runs/a/shards/x")
    assert not instance.may("s3:PutObject", f"{bucket}/code/{'0' * 64}.tar.gz")
    assert not instance.may("s3:PutObject", f"{bucket}/other")
    for action in ("DeleteObject", "DeleteObjectVersion", "PutBucketVersioning", "PutLifecycleConfiguration"):
        assert not instance.may(f"s3:{action}", bucket), action
        assert not instance.may(f"s3:{action}", f"{bucket}/runs/a/shards/x"), action


def test_an_instance_fetches_the_agent_and_no_other_asset(instance: Role, home: Template) -> None:
    script = home.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]
    lines = dict(line.split("=", 1) for line in script.splitlines() if line.startswith("agent_"))
    bucket = f"arn:aws:s3:::{lines['agent_bucket'].strip(chr(39))}"

    assert instance.may("s3:GetObject", f"{bucket}/{lines['agent_key']}")
    assert not instance.may("s3:GetObject", f"{bucket}/{'1' * 64}.zip")


def test_an_instance_speaks_for_itself_and_not_for_ec2_or_the_control_plane(instance: Role) -> None:
    bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/Spotrelay"

    assert instance.may("events:PutEvents", bus, {"events:source": "spotrelay"})
    for source in ("aws.ec2", "spotrelay.run", "anything"):
        assert not instance.may("events:PutEvents", bus, {"events:source": source}), source
    assert not instance.may("events:PutEvents", bus)
    default = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"
    assert not instance.may("events:PutEvents", default, {"events:source": "spotrelay"})


def test_an_instance_reads_the_secrets_that_the_context_names_and_no_others(instance: Role) -> None:
    parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"

    assert instance.may("ssm:GetParameter", f"{parameter}/spotrelay/hugging-face")
    assert not instance.may("ssm:GetParameter", f"{parameter}/production/password")
    assert not instance.may("ssm:PutParameter", f"{parameter}/spotrelay/hugging-face")
    secret = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:anything-abcdef"
    assert not instance.may("secretsmanager:GetSecretValue", secret)


def test_an_instance_has_no_power_over_machines_roles_or_functions(instance: Role, home: Template) -> None:
    for action in ("ec2:RunInstances", "ec2:CreateFleet", "ec2:TerminateInstances", "ec2:CreateTags"):
        assert not instance.may(action, ec2("instance", "i-0123456789abcdef0"), launched(template_arn(home))), action
    assert not instance.may("iam:PassRole", home.arn("AWS::IAM::Role", "IdentityRole"))
    assert not instance.may("sts:AssumeRole", home.arn("AWS::IAM::Role", "RunsWorker"))
    assert not instance.may("lambda:InvokeFunction", home.arn("AWS::Lambda::Function", "RunsWorker"))
    assert not instance.may("sqs:SendMessage", home.arn("AWS::SQS::Queue", "RunsQueue"))


# All of them.


def test_no_statement_allows_a_whole_service_or_everything(home: Template) -> None:
    policies = [*home.of("AWS::IAM::Policy").values(), *home.of("AWS::IAM::ManagedPolicy").values()]
    for policy in policies:
        for statement in statements([policy["PolicyDocument"]]):
            assert not [action for action in statement["Action"] if "*" in action], statement
            if "*" in statement["Resource"]:
                looks = ("ec2:Describe", "ec2:GetSpotPlacementScores")
                assert all(action.startswith(looks) for action in statement["Action"]), statement


@pytest.mark.parametrize("action", ["ec2:GetSpotPlacementScores", "ec2:DescribeAvailabilityZones"])
def test_the_sweep_alone_asks_where_ec2_has_spot_capacity(home: Template, action: str) -> None:
    assert [name for name in (*CONTROL, "IdentityRole") if Role(home, name).may(action, "*")] == ["SweepWorker"]


def test_a_stack_that_is_not_to_ask_for_placement_scores_has_no_right_to(synthesise: Synthesise) -> None:
    template = synthesise(placement_scores=False)["Spotrelay"]

    assert not Role(template, "SweepWorker").may("ec2:GetSpotPlacementScores", "*")
    told = {f["Environment"]["Variables"].get(settings.PLACEMENT_SCORES) for f in functions(template)}
    assert told - {None} == {settings.OFF}


def test_every_function_that_launches_knows_whether_scores_are_asked_for(home: Template) -> None:
    told = {f["Environment"]["Variables"].get(settings.PLACEMENT_SCORES) for f in functions(home)}

    assert told - {None} == {settings.ON}


def test_no_role_has_a_policy_that_somebody_else_may_change(home: Template) -> None:
    assert [name for name, role in home.of("AWS::IAM::Role").items() if role.get("ManagedPolicyArns")] == []


def test_policies_stay_within_what_iam_takes(abroad: dict[str, Template]) -> None:
    template = abroad["Spotrelay"]

    for role in CONTROL:
        inline = [p for p in template.of("AWS::IAM::Policy").values() if p["Roles"][0].startswith(role)]
        assert sum(_size(policy) for policy in inline) < 10_240 / 2
    managed = template.of("AWS::IAM::ManagedPolicy").values()
    assert [_size(policy) for policy in managed if _size(policy) > 6_144 * 3 / 4] == []


def test_machines_abroad_may_be_launched_where_the_context_says(abroad: dict[str, Template]) -> None:
    role = Role(abroad["Spotrelay"], "RunsWorker")
    template = ec2("launch-template", "lt-0f", "eu-west-1")

    assert role.may("ec2:CreateFleet", template)
    assert role.may("ec2:RunInstances", ec2("instance", "*", "eu-west-1"), launched(template))
    assert role.may("ec2:RunInstances", ec2("subnet", "subnet-0e", "eu-west-1"), launched(template))
    assert not role.may("ec2:RunInstances", ec2("instance", "*", "us-west-2"), launched(template))
    assert not role.may("ec2:RunInstances", ec2("instance", "*", "eu-west-1"), launched(template, OTHERS))


def _size(policy: dict[str, Any]) -> int:
    return len(json.dumps(policy["PolicyDocument"], separators=(",", ":")))
