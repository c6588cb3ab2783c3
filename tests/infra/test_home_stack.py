"""What the home stack's template says."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from handlers import settings
from infra.host import ROOT
from spotrelay.aws.places import parse_places
from tests.infra.conftest import Synthesise
from tests.infra.reading import REGION, Template

WORKERS = ("Interruptions", "Runs", "Sweep")
OUTPUTS = (
    "Table",
    "Bucket",
    "Bus",
    "Switch",
    "Places",
    "RunsQueueUrl",
    "InstanceRoleArn",
    "InterruptionsFunction",
    "RunsFunction",
    "SweepFunction",
    "SweepSchedule",
)


def test_nothing_needs_a_custom_resource(home: Template) -> None:
    kinds = {resource["Type"] for resource in home.resources.values()}

    assert not [kind for kind in kinds if kind.startswith("Custom::") or "CustomResource" in kind]
    assert len(home.of("AWS::Lambda::Function")) == len(WORKERS) + 1, "CDK added a function of its own"


def test_the_table_is_kept_protected_and_can_be_turned_back(home: Template) -> None:
    table = home.one("AWS::DynamoDB::Table")

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["DeletionProtectionEnabled"] is True
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert _keys(table["KeySchema"]) == ("pk", "sk")
    _assert_kept(home, "AWS::DynamoDB::Table")


def test_the_only_indexes_are_due_and_runs_and_hold_keys_only(home: Template) -> None:
    indexes = home.one("AWS::DynamoDB::Table")["GlobalSecondaryIndexes"]

    assert {index["IndexName"]: _keys(index["KeySchema"]) for index in indexes} == {
        "due": ("due_shard", "due_at"),
        "runs": ("listed", "created_at"),
    }
    assert {index["Projection"]["ProjectionType"] for index in indexes} == {"KEYS_ONLY"}


def test_due_times_are_numbers(home: Template) -> None:
    attributes = home.one("AWS::DynamoDB::Table")["AttributeDefinitions"]

    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in attributes}
    assert types == {"pk": "S", "sk": "S", "due_shard": "S", "due_at": "N", "listed": "S", "created_at": "S"}


def test_the_bucket_is_versioned_private_encrypted_and_kept(home: Template) -> None:
    bucket = home.one("AWS::S3::Bucket", "VaultBucket")

    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert bucket["LoggingConfiguration"]["DestinationBucketName"].startswith("VaultAccessLogs")
    _assert_kept(home, "AWS::S3::Bucket")


def test_no_lifecycle_rule_ever_ends_a_current_object_or_a_version_of_a_checkpoint(home: Template) -> None:
    rules = home.one("AWS::S3::Bucket", "VaultBucket")["LifecycleConfiguration"]["Rules"]

    assert not [rule for rule in rules if "ExpirationInDays" in rule or "ExpirationDate" in rule]
    ending = [rule for rule in rules if "NoncurrentVersionExpiration" in rule]
    assert [rule["Prefix"] for rule in ending] == ["code/"]
    assert [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]


def test_nobody_overwrites_a_part_of_a_checkpoint(home: Template) -> None:
    bucket = home.name("AWS::S3::Bucket", "VaultBucket")
    (policy,) = [p for p in home.of("AWS::S3::BucketPolicy").values() if p["Bucket"] == bucket]

    (refusal,) = [s for s in policy["PolicyDocument"]["Statement"] if s.get("Sid") == "OnlyAddToRuns"]

    assert (refusal["Effect"], refusal["Action"], refusal["Principal"]) == ("Deny", "s3:PutObject", {"AWS": "*"})
    assert refusal["Resource"] == f"arn:aws:s3:::{bucket}/runs/*"
    assert refusal["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},  # parts of a multipart upload carry no condition
    }


def test_every_bucket_refuses_what_does_not_come_over_tls(home: Template) -> None:
    policies = home.of("AWS::S3::BucketPolicy").values()

    assert {p["Bucket"] for p in policies} == set(home.of("AWS::S3::Bucket"))
    for policy in policies:
        assert _refuses_plain_http(policy["PolicyDocument"]), policy


def test_every_queue_is_encrypted_and_refuses_what_does_not_come_over_tls(home: Template) -> None:
    queues = home.of("AWS::SQS::Queue")

    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    protected = {q for p in home.of("AWS::SQS::QueuePolicy").values() for q in p["Queues"]}
    assert protected == set(queues)
    for policy in home.of("AWS::SQS::QueuePolicy").values():
        assert _refuses_plain_http(policy["PolicyDocument"]), policy


def test_every_notice_has_a_function_call_of_its_own(home: Template) -> None:
    sources = home.of("AWS::Lambda::EventSourceMapping").values()

    assert {source["EventSourceArn"]: source["BatchSize"] for source in sources} == {
        home.arn("AWS::SQS::Queue", "InterruptionsQueue"): 1,
        home.arn("AWS::SQS::Queue", "RunsQueue"): 5,
    }


def test_a_failed_message_is_tried_again_before_half_a_notice_is_over(home: Template) -> None:
    queue = home.one("AWS::SQS::Queue", "InterruptionsQueue")

    function = home.one("AWS::Lambda::Function", "InterruptionsWorker")
    assert function["Timeout"] < queue["VisibilityTimeout"] <= 60
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == home.arn("AWS::SQS::Queue", "InterruptionsDead")


def test_workers_answer_for_each_record_and_are_bounded(home: Template) -> None:
    sources = home.of("AWS::Lambda::EventSourceMapping").values()

    assert {source["EventSourceArn"] for source in sources} == {
        home.arn("AWS::SQS::Queue", "InterruptionsQueue"),
        home.arn("AWS::SQS::Queue", "RunsQueue"),
    }
    for source in sources:
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert source["ScalingConfig"] == {"MaximumConcurrency": 50}
        assert "MaximumBatchingWindowInSeconds" not in source, "a notice must not wait for company"


@pytest.mark.parametrize("bus", ["default", "home"])
def test_events_of_ec2_reach_the_interruptions_queue_from_both_buses(home: Template, bus: str) -> None:
    wanted = {
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
        "EC2 Instance State-change Notification",
        "EC2 Capacity Reservation Instance Interruption Warning",
        "Capacity Block Expiration Warning",
        "Capacity Block Reservation Expiration Warning",
    }

    rules = [r for r in _rules(home, bus) if r["EventPattern"]["source"] == ["aws.ec2"]]

    assert {kind for rule in rules for kind in rule["EventPattern"]["detail-type"]} == wanted
    assert {rule["Targets"][0]["Arn"] for rule in rules} == {home.arn("AWS::SQS::Queue", "InterruptionsQueue")}


def test_only_states_that_end_a_machine_are_listened_to(home: Template) -> None:
    patterns = [rule["EventPattern"] for rule in home.of("AWS::Events::Rule").values()]

    states = [p["detail"]["state"] for p in patterns if "detail" in p]
    assert states == [["shutting-down", "terminated", "stopping", "stopped"]] * 2


def test_our_own_events_reach_the_runs_queue_and_those_for_users_do_not(home: Template) -> None:
    rules = [r for r in _rules(home, "home") if "aws.ec2" not in r["EventPattern"]["source"]]

    assert [rule["EventPattern"] for rule in rules] == [{"source": ["spotrelay"]}]
    assert rules[0]["Targets"][0]["Arn"] == home.arn("AWS::SQS::Queue", "RunsQueue")


def test_every_rule_retries_for_a_while_and_then_keeps_the_event(home: Template) -> None:
    for name, rule in home.of("AWS::Events::Rule").items():
        for target in rule["Targets"]:
            assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 3600, "MaximumRetryAttempts": 20}, name
            assert "Dead" in target["DeadLetterConfig"]["Arn"], name


def test_rules_may_send_to_the_queues_that_they_name_and_to_their_dead_letter_queues(home: Template) -> None:
    wanted = set()
    for name, rule in home.of("AWS::Events::Rule").items():
        for target in rule["Targets"]:
            wanted |= {(name, target["Arn"]), (name, target["DeadLetterConfig"]["Arn"])}

    granted = {
        (rule.rsplit("/", 1)[-1], statement["Resource"])
        for policy in home.of("AWS::SQS::QueuePolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Principal"] == {"Service": "events.amazonaws.com"} and statement["Effect"] == "Allow"
        for rule in [statement["Condition"]["ArnEquals"]["aws:SourceArn"]]
    }
    assert wanted <= granted


def test_the_sweep_is_called_every_minute_and_its_failures_are_kept(home: Template) -> None:
    schedule = home.one("AWS::Scheduler::Schedule")

    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["Target"]["Arn"] == home.arn("AWS::Lambda::Function", "SweepWorker")
    assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] >= 1
    dead = home.arn("AWS::SQS::Queue", "SweepDead")
    assert schedule["Target"]["DeadLetterConfig"]["Arn"] == dead
    assert home.one("AWS::Lambda::Function", "SweepWorker")["DeadLetterConfig"]["TargetArn"] == dead


@pytest.mark.parametrize("worker", WORKERS)
def test_every_handler_exists(home: Template, worker: str) -> None:
    module, _, function = home.one("AWS::Lambda::Function", f"{worker}Worker")["Handler"].rpartition(".")

    spec = importlib.util.find_spec(module)

    assert spec is not None and spec.origin is not None, f"there is no module {module}"
    assert f"def {function}(" in Path(spec.origin).read_text()


@pytest.mark.parametrize("worker", WORKERS)
def test_every_function_is_told_what_the_handlers_read(home: Template, worker: str) -> None:
    variables = home.one("AWS::Lambda::Function", f"{worker}Worker")["Environment"]["Variables"]

    read = settings.read_settings(variables)

    assert read.stack == "Spotrelay"
    assert read.table == home.outputs["Table"]
    assert read.time_scale == 1.0
    assert read.runs_queue, "a run that is due before the next sweep gets its early look through the queue"


@pytest.mark.parametrize(
    ("chosen", "runtime", "architecture"),
    [({}, "python3.13", "arm64"), ({"architecture": "x86_64", "python": "3.12"}, "python3.12", "x86_64")],
)
def test_architecture_and_python_are_choices(
    synthesise: Synthesise, chosen: dict[str, str], runtime: str, architecture: str
) -> None:
    functions = synthesise(**chosen)["Spotrelay"].of("AWS::Lambda::Function").values()

    assert {f["Runtime"] for f in functions} == {runtime}
    assert {tuple(f["Architectures"]) for f in functions} == {(architecture,)}


def test_every_function_logs_into_a_group_of_its_own_that_forgets(home: Template) -> None:
    groups = home.of("AWS::Logs::LogGroup")
    used = [f["LoggingConfig"]["LogGroup"] for f in home.of("AWS::Lambda::Function").values()]

    assert sorted(used) == sorted(groups)
    assert {group["RetentionInDays"] for group in groups.values()} == {30}


def test_machines_need_a_metadata_token_show_their_tags_and_end_when_they_shut_down(home: Template) -> None:
    data = home.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]

    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 2,
        "InstanceMetadataTags": "enabled",
    }
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert data["IamInstanceProfile"] == {"Name": home.one("AWS::IAM::InstanceProfile")["InstanceProfileName"]}
    volume = data["BlockDeviceMappings"][0]["Ebs"]
    assert (volume["Encrypted"], volume["VolumeType"], volume["DeleteOnTermination"]) == (True, "gp3", True)


AMAZON_LINUX = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"


@pytest.mark.parametrize(
    ("chosen", "device"),
    [
        ({}, "/dev/sda1"),
        ({"image": AMAZON_LINUX}, "/dev/xvda"),
        ({"image": AMAZON_LINUX, "root_device": "/dev/sda1"}, "/dev/sda1"),
        ({"image": "ami-0123456789abcdef0", "root_device": "/dev/sda1"}, "/dev/sda1"),
        ({"image": "ami-0123456789abcdef0", "root_device": "/dev/xvda"}, "/dev/xvda"),
    ],
)
def test_the_disk_that_is_made_larger_is_the_one_that_the_image_boots_from(
    synthesise: Synthesise, chosen: dict[str, str], device: str
) -> None:
    template = synthesise(volume_gib=321, **chosen)["Spotrelay"]

    (mapping,) = template.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]

    assert (mapping["DeviceName"], mapping["Ebs"]["VolumeSize"]) == (device, 321)


def test_the_launch_template_leaves_market_and_type_to_each_launch(home: Template) -> None:
    data = home.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]

    assert not {"InstanceMarketOptions", "InstanceType", "KeyName", "NetworkInterfaces"} & set(data)


def test_machines_and_their_volumes_carry_the_tags(synthesise: Synthesise) -> None:
    template = synthesise(tags={"cost-centre": "42 / a"})["Spotrelay"]

    specifications = template.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["TagSpecifications"]

    assert {s["ResourceType"] for s in specifications} == {"instance", "volume", "network-interface"}
    for specification in specifications:
        tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
        assert tags == {"spotrelay:managed": "Spotrelay", "cost-centre": "42 / a"}


def test_nobody_can_connect_to_a_machine_but_another_one_of_the_stack(home: Template) -> None:
    group = home.one("AWS::EC2::SecurityGroup")

    assert "SecurityGroupIngress" not in group
    (way_in,) = home.of("AWS::EC2::SecurityGroupIngress").values()
    assert way_in["SourceSecurityGroupId"] == way_in["GroupId"] == home.name("AWS::EC2::SecurityGroup", "Launchpad")
    assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & way_in.keys()
    template = home.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    assert template["SecurityGroupIds"] == [home.name("AWS::EC2::SecurityGroup", "Launchpad")]


def test_the_own_network_has_a_public_subnet_in_each_zone_and_gateways_to_s3_and_dynamodb(home: Template) -> None:
    subnets = home.of("AWS::EC2::Subnet").values()

    assert [s["AvailabilityZone"] for s in subnets] == [f"{REGION}{letter}" for letter in "abc"]
    assert len({s["CidrBlock"] for s in subnets}) == len(subnets)
    assert not home.of("AWS::EC2::NatGateway")
    endpoints = home.of("AWS::EC2::VPCEndpoint").values()
    assert {e["ServiceName"] for e in endpoints} == {f"com.amazonaws.{REGION}.s3", f"com.amazonaws.{REGION}.dynamodb"}
    assert {e["VpcEndpointType"] for e in endpoints} == {"Gateway"}


def test_a_given_network_is_used_as_it_is(synthesise: Synthesise) -> None:
    subnets = {"us-east-1b": "subnet-0b", "us-east-1a": "subnet-0a"}
    template = synthesise(vpc={"id": "vpc-0c", "subnets": subnets, "route_tables": ["rtb-0d"]})["Spotrelay"]

    assert not template.of("AWS::EC2::VPC")
    assert not template.of("AWS::EC2::Subnet")
    assert template.one("AWS::EC2::SecurityGroup")["VpcId"] == "vpc-0c"
    assert {e["VpcId"] for e in template.of("AWS::EC2::VPCEndpoint").values()} == {"vpc-0c"}
    assert parse_places(template.outputs["Places"]).place(REGION).subnets == subnets


def test_the_image_is_looked_up_at_each_deployment_or_pinned(home: Template, synthesise: Synthesise) -> None:
    looked_up = home.body["Parameters"]["InstanceImage"]
    pinned = synthesise(image="ami-0123456789abcdef0", root_device="/dev/sda1")["Spotrelay"]

    assert looked_up["Type"] == "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>"
    assert "InstanceImage" not in pinned.body["Parameters"]
    assert pinned.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["ImageId"] == "ami-0123456789abcdef0"


def test_the_switch_lets_launches_happen_at_first(home: Template) -> None:
    parameter = home.one("AWS::SSM::Parameter")

    assert (parameter["Name"], parameter["Value"]) == ("/Spotrelay/launches", "on")
    assert home.outputs["Switch"] == "/Spotrelay/launches"


def test_the_outputs_name_everything_that_others_look_for(home: Template) -> None:
    outputs = home.outputs

    assert set(OUTPUTS) <= set(outputs)
    assert outputs["Bus"] == "Spotrelay"
    assert (
        outputs["Places"]
        == home.one("AWS::Lambda::Function", "RunsWorker")["Environment"]["Variables"][settings.PLACES]
    )
    place = parse_places(outputs["Places"]).place(REGION)
    assert (place.launch_template, place.version) == (home.name("AWS::EC2::LaunchTemplate", "Launchpad"), "1")
    assert list(place.subnets) == [f"{REGION}{letter}" for letter in "abc"]


def test_an_unprotected_stack_can_be_deleted_with_its_table_still_kept(synthesise: Synthesise) -> None:
    template = synthesise(protected=False)["Spotrelay"]

    assert template.one("AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is False
    _assert_kept(template, "AWS::DynamoDB::Table")


def test_every_dead_letter_queue_has_an_alarm(home: Template) -> None:
    dead = {name for name in home.of("AWS::SQS::Queue") if "Dead" in name}

    watched = {
        dimension["Value"]
        for alarm in home.of("AWS::CloudWatch::Alarm").values()
        if alarm.get("MetricName") == "ApproximateNumberOfMessagesVisible"
        for dimension in alarm["Dimensions"]
    }
    assert len(dead) == len(WORKERS)
    assert {_name_of(value) for value in watched} == dead


def test_alarmed_metrics_are_those_that_the_handlers_count(home: Template) -> None:
    ours = [a for a in home.of("AWS::CloudWatch::Alarm").values() if a["Namespace"] == settings.METRICS_NAMESPACE]

    assert {alarm["MetricName"] for alarm in ours} == {
        settings.QUARANTINED,
        settings.ORPHANS_TERMINATED,
        settings.SWEEP_FAILURES,
        settings.CHECKPOINTS_OVERDUE,
        settings.NO_PROGRESS,
        settings.MACHINES_TOO_MANY,
        settings.COLLECTIONS_POSTPONED,
    }
    for alarm in ours:
        assert alarm["Dimensions"] == [{"Name": settings.SERVICE_DIMENSION, "Value": "Spotrelay"}]


def test_a_surplus_machine_an_orphan_an_old_checkpoint_and_life_without_progress_are_alarmed(home: Template) -> None:
    alarms = {a["MetricName"]: a for a in home.of("AWS::CloudWatch::Alarm").values()}

    for metric in (
        settings.MACHINES_TOO_MANY,
        settings.ORPHANS_TERMINATED,
        settings.CHECKPOINTS_OVERDUE,
        settings.NO_PROGRESS,
    ):
        assert (alarms[metric]["Threshold"], alarms[metric]["Statistic"]) == (1, "Sum")
        assert alarms[metric]["TreatMissingData"] == "notBreaching"


@pytest.mark.parametrize("metric", ["NO_PROGRESS", "MACHINES_TOO_MANY", "CHECKPOINTS_OVERDUE", "ORPHANS_TERMINATED"])
def test_an_alarmed_metric_is_counted_somewhere_in_the_handlers(metric: str) -> None:
    counted = re.compile(rf"telemetry\.count\({metric}\b")

    assert any(counted.search(path.read_text()) for path in (ROOT / "handlers").glob("*.py"))


def test_money_is_counted_and_alarmed_where_the_context_bounds_it(synthesise: Synthesise) -> None:
    template = synthesise(budget_dollars_per_day=120.5, spend_dollars_per_hour=9)["Spotrelay"]
    alarms = {a["MetricName"]: a for a in template.of("AWS::CloudWatch::Alarm").values()}
    functions = [f for name, f in template.of("AWS::Lambda::Function").items() if "Worker" in name]

    assert (alarms[settings.SPEND_RATE]["Threshold"], alarms[settings.SPEND_RATE]["Statistic"]) == (900, "Maximum")
    assert alarms[settings.MONEY_REFUSED]["Threshold"] == 1
    assert {f["Environment"]["Variables"][settings.DAY_DOLLARS] for f in functions} == {"120.5"}
    assert all("runbook.md#" in alarms[n]["AlarmDescription"] for n in (settings.SPEND_RATE, settings.MONEY_REFUSED))


@pytest.mark.parametrize(("config", "told"), [({}, "none"), ({"spend_dollars_per_hour": 9}, "1000000000.0")])
def test_money_without_a_ceiling_is_counted_only_for_the_alarm(
    synthesise: Synthesise, config: dict[str, Any], told: str
) -> None:
    template = synthesise(**config)["Spotrelay"]

    assert template.outputs["DayDollars"] == told


def test_every_alarm_points_to_a_chapter_of_the_runbook_that_exists(home: Template) -> None:
    texts = [alarm["AlarmDescription"] for alarm in home.of("AWS::CloudWatch::Alarm").values()]

    anchors = {text.rpartition("docs/runbook.md#")[2] for text in texts}

    headings = {
        line.lstrip("#").strip().lower().replace(" ", "-")
        for line in (ROOT / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("#")
    }
    assert anchors <= headings, f"missing in docs/runbook.md: {sorted(anchors - headings)}"


def test_a_silent_sweep_raises_an_alarm(home: Template) -> None:
    alarm = home.one("AWS::CloudWatch::Alarm", "SweepSilent")

    assert (alarm["MetricName"], alarm["TreatMissingData"]) == ("Invocations", "breaching")


def test_alarms_go_to_the_address_that_the_context_names(synthesise: Synthesise) -> None:
    template = synthesise(alarm_email="ops@example.org")["Spotrelay"]

    topic = template.name("AWS::SNS::Topic", "Alarms")
    assert template.one("AWS::SNS::Subscription")["Endpoint"] == "ops@example.org"
    assert all(a["AlarmActions"] == [topic] for a in template.of("AWS::CloudWatch::Alarm").values())
    policy = json.dumps(template.one("AWS::SNS::TopicPolicy"))
    assert "cloudwatch.amazonaws.com" in policy


def _rules(template: Template, bus: str) -> list[dict[str, Any]]:
    home = template.name("AWS::Events::EventBus", "Home")
    rules = template.of("AWS::Events::Rule").values()
    wanted = None if bus == "default" else home
    return [rule for rule in rules if (rule.get("EventBusName") and home) == wanted]


def _keys(schema: list[dict[str, str]]) -> tuple[str, ...]:
    return tuple(key["AttributeName"] for key in sorted(schema, key=lambda key: key["KeyType"]))


def _name_of(value: str) -> str:
    return value.rsplit(":", 1)[-1]


def _assert_kept(template: Template, kind: str) -> None:
    for resource in template.resources.values():
        if resource["Type"] == kind:
            assert resource["DeletionPolicy"] == "Retain"
            assert resource["UpdateReplacePolicy"] == "Retain"


def _refuses_plain_http(document: dict[str, Any]) -> bool:
    return any(
        s["Effect"] == "Deny" and s["Condition"].get("Bool") == {"aws:SecureTransport": "false"}
        for s in document["Statement"]
        if "Condition" in s
    )
