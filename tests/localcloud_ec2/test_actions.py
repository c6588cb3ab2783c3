"""Every action through a real boto3 client: what it answers, and of which types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spotrelay.localcloud.ec2 import catalogue, wire
from spotrelay.localcloud.ec2.service import Ec2
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

PYTHON_TYPES: dict[str, type] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "double": float,
    "float": float,
    "timestamp": datetime,
    "list": list,
    "structure": dict,
}


def check(shape: Any, value: Any, path: str) -> None:
    """Assert that a value has the model's type, all the way down."""
    expected = PYTHON_TYPES[shape.type_name]
    assert expected in type(value).__mro__, path
    if shape.type_name == "structure":
        for name, below in value.items():
            check(shape.members[name], below, f"{path}.{name}")
    elif shape.type_name == "list":
        for below in value:
            check(shape.member, below, f"{path}[]")
    elif getattr(shape, "enum", None):
        assert value in shape.enum, path


def test_every_action_answers_in_the_models_types(cloud: Standalone, ec2: Any) -> None:
    fleet = ec2.create_fleet(**kit.fleet_request(cloud, ClientToken="one"))
    instance = fleet["Instances"][0]["InstanceIds"][0]
    kit.running(cloud, instance)
    calls: dict[str, Any] = {
        "DescribeInstances": ec2.describe_instances(),
        "DescribeInstanceStatus": ec2.describe_instance_status(),
        "DescribeTags": ec2.describe_tags(),
        "DescribeFleets": ec2.describe_fleets(FleetIds=[fleet["FleetId"]]),
        "DescribeSpotInstanceRequests": ec2.describe_spot_instance_requests(),
        "DescribeSpotPriceHistory": ec2.describe_spot_price_history(InstanceTypes=["g5.xlarge"]),
        "DescribeInstanceTypes": ec2.describe_instance_types(),
        "DescribeInstanceTypeOfferings": ec2.describe_instance_type_offerings(LocationType="availability-zone"),
        "GetSpotPlacementScores": ec2.get_spot_placement_scores(InstanceTypes=["g5.xlarge"], TargetCapacity=1),
        "RunInstances": ec2.run_instances(
            MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE}, UserData="#!/bin/sh\n"
        ),
        "TerminateInstances": ec2.terminate_instances(InstanceIds=[instance]),
        "CreateFleet": fleet,
    }
    refused = kit.refusal(ec2.describe_fleet_instances, FleetId=fleet["FleetId"])

    for action, answer in calls.items():
        body = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
        assert any(body.values()), action
        check(wire.operation(action).output_shape, body, action)
    assert "not support fleets of type instant" in refused[2]
    assert set(calls) | {"CreateTags", "DescribeFleetInstances"} == Ec2.ACTIONS


def test_an_action_of_another_kind_is_no_action_of_ours(cloud: Standalone, ec2: Any) -> None:
    assert kit.refusal(ec2.describe_vpcs)[0] == "InvalidAction"


def test_run_instances_merges_request_and_template(cloud: Standalone, ec2: Any) -> None:
    subnet = kit.subnets(cloud)["us-east-1b"]
    kit.template(
        cloud,
        TagSpecifications=[{"ResourceType": "instance", "Tags": kit.pairs({"a": "template", "b": "template"})}],
        SecurityGroupIds=["sg-1"],
        InstanceMarketOptions={"MarketType": "spot"},
    )

    answer = ec2.run_instances(
        MinCount=2,
        MaxCount=2,
        LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE, "Version": "$Latest"},
        InstanceType="g5.2xlarge",
        SubnetId=subnet,
        TagSpecifications=[{"ResourceType": "instance", "Tags": kit.pairs({"b": "request"})}],
    )
    made = answer["Instances"]

    assert [i["AmiLaunchIndex"] for i in made] == [0, 1]
    assert {i["InstanceType"] for i in made} == {"g5.2xlarge"}
    assert {i["Placement"]["AvailabilityZone"] for i in made} == {"us-east-1b"}
    assert {i["InstanceLifecycle"] for i in made} == {"spot"}
    assert {i["SpotInstanceRequestId"][:4] for i in made} == {"sir-"}
    assert made[0]["SecurityGroups"][0]["GroupId"] == "sg-1"
    tags = {tag["Key"]: tag["Value"] for tag in made[0]["Tags"]}
    assert (tags["a"], tags["b"], tags["aws:ec2launchtemplate:version"]) == ("template", "request", "$Latest")


def test_on_demand_instances_show_no_lifecycle(cloud: Standalone, ec2: Any) -> None:
    kit.template(cloud)

    made = ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE})

    assert "InstanceLifecycle" not in made["Instances"][0]
    assert ec2.describe_instances(Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]}])["Reservations"] == []


def found(answer: dict[str, Any]) -> set[str]:
    return {i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]}


def test_instances_are_found_by_filters(cloud: Standalone, ec2: Any) -> None:
    first = kit.launch(cloud, ClientToken="first")
    second = kit.launch(cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": kit.pairs({"other": "x"})}])
    kit.running(cloud, first)

    def by(**values: str) -> set[str]:
        filters = [{"Name": name.replace("__", ":").replace("_", "-"), "Values": [v]} for name, v in values.items()]
        return found(ec2.describe_instances(Filters=filters))

    assert by(**{"tag:spotrelay:run": "story"}) == {first}
    assert by(**{"tag:spotrelay:run": "st?r*"}) == {first}
    assert by(**{"tag:spotrelay:run": "tale"}) == set()
    assert by(**{"tag-key": "other"}) == {second}
    assert by(**{"client-token": "first"}) == {first}
    assert by(**{"instance-lifecycle": "spot", "tag-key": "Name*"}) == set()
    assert by(**{"instance-id": second}) == {second}
    assert by(**{"instance-id": "i-0123456789abcdef0"}) == set()
    assert by(**{"instance-state-name": "terminated"}) == set()
    assert kit.refusal(ec2.describe_instances, Filters=[{"Name": "colour", "Values": ["red"]}])[0] == (
        "InvalidParameterValue"
    )


def test_pages_hold_everything_once(cloud: Standalone, ec2: Any) -> None:
    kit.template(cloud, None)
    made = {kit.launch(cloud) for _ in range(12)}

    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))

    assert [sum(len(r["Instances"]) for r in page["Reservations"]) for page in pages] == [5, 5, 2]
    assert set().union(*map(found, pages)) == made


def test_page_size_and_ids_do_not_go_together(cloud: Standalone, ec2: Any) -> None:
    instance = kit.launch(cloud)

    assert kit.refusal(ec2.describe_instances, InstanceIds=[instance], MaxResults=5)[0] == (
        "InvalidParameterCombination"
    )


def test_regions_do_not_see_each_other(cloud: Standalone) -> None:
    instance = kit.launch(cloud)
    elsewhere = kit.client(cloud, "us-west-2")

    assert elsewhere.describe_instances()["Reservations"] == []
    assert kit.refusal(elsewhere.terminate_instances, InstanceIds=[instance])[0] == "InvalidInstanceID.NotFound"
    assert (
        kit.refusal(
            elsewhere.run_instances,
            MinCount=1,
            MaxCount=1,
            ImageId="ami-1",
            InstanceType="g5.xlarge",
            SubnetId=kit.subnets(cloud)["us-east-1a"],
        )[0]
        == "InvalidSubnetID.NotFound"
    )


def test_a_new_instance_can_stay_unknown_for_a_while(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.set_lag(60)
    instance = kit.launch(cloud, ClientToken="early")

    assert kit.refusal(ec2.describe_instances, InstanceIds=[instance])[0] == "InvalidInstanceID.NotFound"
    assert ec2.describe_instances()["Reservations"] == []
    assert kit.launch(cloud, ClientToken="early") == instance
    cloud.ec2.set_lag(0)
    assert found(ec2.describe_instances()) == {instance}


def test_tags_can_be_set_later_and_read(cloud: Standalone, ec2: Any) -> None:
    instance = kit.launch(cloud)

    ec2.create_tags(Resources=[instance], Tags=kit.pairs({"colour": "blue", "spotrelay:run": "tale"}))
    rows = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance]}])["Tags"]

    tags = {row["Key"]: row["Value"] for row in rows}
    assert (tags["colour"], tags["spotrelay:run"], tags["spotrelay:managed"]) == ("blue", "tale", "Stack")
    assert {row["ResourceType"] for row in rows} == {"instance"}


def test_status_tells_of_running_instances_only_unless_asked_for_all(cloud: Standalone, ec2: Any) -> None:
    instance = kit.launch(cloud)
    kit.running(cloud, instance)

    assert [s["InstanceState"]["Name"] for s in ec2.describe_instance_status()["InstanceStatuses"]] == ["running"]
    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)
    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    everything = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert [s["InstanceState"]["Name"] for s in everything] == ["terminated"]


def test_termination_reports_the_states_before_and_after_and_can_be_repeated(cloud: Standalone, ec2: Any) -> None:
    instance = kit.launch(cloud)
    kit.running(cloud, instance)

    first = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    kit.terminated(cloud, instance)
    again = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]

    assert (first["PreviousState"]["Name"], first["CurrentState"]) == ("running", {"Code": 32, "Name": "shutting-down"})
    assert (again["PreviousState"]["Name"], again["CurrentState"]["Name"]) == ("terminated", "terminated")


def test_a_spot_price_is_in_effect_at_every_moment_and_on_demand_costs_more(cloud: Standalone, ec2: Any) -> None:
    now = datetime.now(UTC)

    rows = ec2.describe_spot_price_history(
        InstanceTypes=["g5.xlarge"], ProductDescriptions=["Linux/UNIX"], StartTime=now
    )["SpotPriceHistory"]
    longer = ec2.describe_spot_price_history(
        InstanceTypes=["g5.xlarge"], AvailabilityZone="us-east-1a", StartTime=now - timedelta(days=1)
    )["SpotPriceHistory"]

    assert sorted(row["AvailabilityZone"] for row in rows) == [f"us-east-1{zone}" for zone in "abcdef"]
    assert all(row["Timestamp"] <= now and 0.4 < float(row["SpotPrice"]) < 0.75 for row in rows)
    assert 4 <= len(longer) <= 6
    assert longer[-1]["Timestamp"] <= now - timedelta(days=1)


def test_a_placement_score_is_low_for_few_types_and_lowest_where_nothing_is_left(cloud: Standalone, ec2: Any) -> None:
    types = ["g5.xlarge", "g5.2xlarge", "g6.xlarge"]

    def best(asked: list[str]) -> int:
        answer = ec2.get_spot_placement_scores(InstanceTypes=asked, TargetCapacity=1, RegionNames=["us-east-1"])
        return int(answer["SpotPlacementScores"][0]["Score"])

    assert best(types[:1]) <= 3 < best(types)
    cloud.ec2.refuse({"region": "us-east-1"}, "InsufficientInstanceCapacity")
    assert best(types) == 1


def test_offerings_name_zones_by_name_and_by_id(cloud: Standalone, ec2: Any) -> None:
    def places(kind: str) -> set[str]:
        filters = [{"Name": "instance-type", "Values": ["g5.xlarge"]}]
        rows = ec2.describe_instance_type_offerings(LocationType=kind, Filters=filters)["InstanceTypeOfferings"]
        return {row["Location"] for row in rows}

    assert places("region") == {"us-east-1"}
    assert "us-east-1a" in places("availability-zone")
    assert "use1-az1" in places("availability-zone-id")


def test_every_type_on_offer_is_one_that_the_model_knows() -> None:
    known = set(getattr(wire.service_model().shape_for("InstanceType"), "enum", ()))

    assert set(catalogue.instance_types()) <= known


def test_types_tell_of_their_processors_and_accelerators(cloud: Standalone, ec2: Any) -> None:
    kinds = {k["InstanceType"]: k for k in ec2.describe_instance_types()["InstanceTypes"]}

    assert kinds["g5.xlarge"]["VCpuInfo"]["DefaultVCpus"] == 4
    assert kinds["g5.12xlarge"]["GpuInfo"]["Gpus"][0]["Count"] == 4
    assert "GpuInfo" not in kinds["m5.large"]
    assert kinds["m7g.large"]["ProcessorInfo"]["SupportedArchitectures"] == ["arm64"]


@pytest.mark.parametrize(
    ("how", "state_and_code"),
    [
        ("nothing", ("active", "fulfilled")),
        ("notice", ("active", "marked-for-termination")),
        ("terminate", ("closed", "instance-terminated-by-user")),
        ("reclaim", ("closed", "instance-terminated-no-capacity")),
    ],
)
def test_a_spot_request_tells_how_its_instance_fares(
    cloud: Standalone, ec2: Any, how: str, state_and_code: tuple[str, str]
) -> None:
    instance = kit.launch(cloud)
    if how == "notice":
        cloud.ec2.interrupt(instance, notice_s=600)
    elif how == "terminate":
        ec2.terminate_instances(InstanceIds=[instance])
    elif how == "reclaim":
        cloud.ec2.interrupt(instance, notice_s=0.0)
        kit.terminated(cloud, instance)

    row = ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]

    assert row["InstanceId"] == instance
    assert (row["State"], row["Status"]["Code"]) == state_and_code
