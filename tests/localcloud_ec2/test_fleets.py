"""Instant fleets: which pools are asked, what is answered, and what a repeated request does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

NONE_LEFT = "InsufficientInstanceCapacity"


def zones_of(answer: dict[str, Any]) -> list[str]:
    return [group["AvailabilityZone"] for group in answer["Instances"] for _ in group["InstanceIds"]]


def test_the_first_pool_with_capacity_gives_the_machine_and_the_others_are_errors(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({"zone": ["us-east-1a", "us-east-1b"], "market": "spot"}, NONE_LEFT)

    answer = ec2.create_fleet(**kit.fleet_request(cloud))

    assert zones_of(answer) == ["us-east-1c"]
    assert [e["ErrorCode"] for e in answer["Errors"]] == [NONE_LEFT, NONE_LEFT]
    about = answer["Errors"][0]["LaunchTemplateAndOverrides"]
    assert about["LaunchTemplateSpecification"] == {"LaunchTemplateId": kit.TEMPLATE, "Version": "1"}
    assert about["Overrides"]["SubnetId"] == kit.subnets(cloud)["us-east-1a"]
    assert answer["Errors"][0]["Lifecycle"] == "spot"
    assert answer["Instances"][0]["SubnetId"] == kit.subnets(cloud)["us-east-1c"]


def test_no_capacity_anywhere_is_http_200_with_errors_and_without_instances(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({}, NONE_LEFT)

    answer = ec2.create_fleet(**kit.fleet_request(cloud))

    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert (len(answer["Errors"]), answer["Instances"]) == (3, [])
    assert cloud.ec2.instances() == []


def test_a_refusal_as_an_exception_fails_the_request_with_a_server_error(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({"instance_type": "g5.xlarge"}, NONE_LEFT, form="exception", times=1)

    assert kit.refusal(ec2.create_fleet, **kit.fleet_request(cloud, ClientToken="t"))[:2] == (NONE_LEFT, 500)
    assert cloud.ec2.instances() == []
    assert zones_of(ec2.create_fleet(**kit.fleet_request(cloud, ClientToken="t"))) == ["us-east-1a"]


def test_a_refusal_counts_down_and_can_be_taken_back(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({"zone": "us-east-1a"}, NONE_LEFT, times=2)
    cloud.ec2.refuse({"zone": "us-east-1b"}, NONE_LEFT)

    zones = [zones_of(ec2.create_fleet(**kit.fleet_request(cloud))) for _ in range(3)]
    cloud.ec2.allow({"zone": "us-east-1b"})
    cloud.ec2.refuse({"zone": "us-east-1a"}, NONE_LEFT)

    assert zones == [["us-east-1c"], ["us-east-1c"], ["us-east-1a"]]
    assert zones_of(ec2.create_fleet(**kit.fleet_request(cloud))) == ["us-east-1b"]


def test_any_code_can_be_asked_for(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({}, "SomethingNewAtAws")

    answer = ec2.create_fleet(**kit.fleet_request(cloud))

    assert {e["ErrorCode"] for e in answer["Errors"]} == {"SomethingNewAtAws"}


def test_priorities_decide_and_the_lowest_number_comes_first(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud)
    overrides = request["LaunchTemplateConfigs"][0]["Overrides"]
    for override, priority in zip(overrides, (2.0, 0.5, 1.0), strict=True):
        override["Priority"] = priority

    assert zones_of(ec2.create_fleet(**request)) == ["us-east-1b"]


def test_the_lowest_price_decides_where_that_is_the_strategy(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud, SpotOptions={"AllocationStrategy": "lowest-price"})
    subnet = kit.subnets(cloud)["us-east-1a"]
    request["LaunchTemplateConfigs"][0]["Overrides"] = [
        {"InstanceType": name, "SubnetId": subnet} for name in ("g5.4xlarge", "g6.xlarge", "g5.2xlarge")
    ]

    assert ec2.create_fleet(**request)["Instances"][0]["InstanceType"] == "g6.xlarge"


def test_spot_and_on_demand_come_in_one_fleet(cloud: Standalone, ec2: Any) -> None:
    target = {
        "TotalTargetCapacity": 3,
        "OnDemandTargetCapacity": 1,
        "DefaultTargetCapacityType": "spot",
    }

    answer = ec2.create_fleet(**kit.fleet_request(cloud, TargetCapacitySpecification=target))

    kinds = {group["Lifecycle"]: len(group["InstanceIds"]) for group in answer["Instances"]}
    assert kinds == {"on-demand": 1, "spot": 2}
    described = ec2.describe_instances(Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]}])
    assert sum(len(r["Instances"]) for r in described["Reservations"]) == 2


def test_a_fleet_that_cannot_reach_its_minimum_launches_nothing(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.set_quota("spot", "G", 8)
    options = {"SingleInstanceType": True, "MinTargetCapacity": 3, "AllocationStrategy": "lowest-price"}
    target = {"TotalTargetCapacity": 3, "DefaultTargetCapacityType": "spot"}

    answer = ec2.create_fleet(**kit.fleet_request(cloud, SpotOptions=options, TargetCapacitySpecification=target))

    assert answer["Instances"] == []
    assert "MaxSpotInstanceCountExceeded" in {e["ErrorCode"] for e in answer["Errors"]}
    assert cloud.ec2.instances() == []


def test_one_zone_means_one_zone(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.refuse({"zone": "us-east-1a"}, NONE_LEFT)
    options = {"SingleAvailabilityZone": True, "AllocationStrategy": "diversified"}
    target = {"TotalTargetCapacity": 4, "DefaultTargetCapacityType": "spot"}

    one = ec2.create_fleet(**kit.fleet_request(cloud, SpotOptions=options, TargetCapacitySpecification=target))
    many = ec2.create_fleet(
        **kit.fleet_request(
            cloud, SpotOptions={"AllocationStrategy": "diversified"}, TargetCapacitySpecification=target
        )
    )

    assert zones_of(one) == ["us-east-1b"] * 4
    assert sorted(zones_of(many)) == ["us-east-1b"] * 2 + ["us-east-1c"] * 2


def test_a_price_below_the_pools_is_too_low(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud)
    request["LaunchTemplateConfigs"][0]["Overrides"] = [{"InstanceType": "g5.xlarge", "MaxPrice": "0.01"}]

    assert {e["ErrorCode"] for e in ec2.create_fleet(**request)["Errors"]} == {"SpotMaxPriceTooLow"}


def test_an_unknown_subnet_is_an_error_of_its_pool_and_an_unknown_template_of_the_request(
    cloud: Standalone, ec2: Any
) -> None:
    request = kit.fleet_request(cloud)
    config = request["LaunchTemplateConfigs"][0]
    config["Overrides"][0]["SubnetId"] = "subnet-none"

    answer = ec2.create_fleet(**request)
    config["LaunchTemplateSpecification"]["LaunchTemplateId"] = "lt-none"

    assert [e["ErrorCode"] for e in answer["Errors"]] == ["InvalidSubnetID.NotFound"]
    assert zones_of(answer) == ["us-east-1b"]
    assert kit.refusal(ec2.create_fleet, **request)[0] == "InvalidLaunchTemplateId.NotFound"


@pytest.mark.parametrize(
    ("market", "code"), [("spot", "MaxSpotInstanceCountExceeded"), ("on-demand", "VcpuLimitExceeded")]
)
def test_a_quota_refuses_its_market_and_family_until_a_machine_ends(
    cloud: Standalone, ec2: Any, market: str, code: str
) -> None:
    cloud.ec2.set_quota(market, "G", 4)
    target = {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": market}
    request = kit.fleet_request(cloud, TargetCapacitySpecification=target)

    first = ec2.create_fleet(**request)["Instances"][0]["InstanceIds"][0]
    refused = {e["ErrorCode"] for e in ec2.create_fleet(**request)["Errors"]}
    ec2.terminate_instances(InstanceIds=[first])

    assert refused == {code}
    assert ec2.create_fleet(**request)["Errors"] == []


def test_a_quota_of_zero_is_a_client_error_of_run_instances(cloud: Standalone, ec2: Any) -> None:
    kit.template(cloud)
    cloud.ec2.set_quota("on-demand", "G", 0)

    told = kit.refusal(ec2.run_instances, MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE})

    assert told[:2] == ("VcpuLimitExceeded", 400)
    assert "limit of 0" in told[2]


def test_the_same_token_gives_the_same_answer_and_no_second_machine(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud, ClientToken="run.1.1")

    first, second = ec2.create_fleet(**request), ec2.create_fleet(**request)

    assert first["FleetId"] == second["FleetId"]
    assert first["Instances"] == second["Instances"]
    assert len(cloud.ec2.instances()) == 1


def test_the_same_token_with_another_request_is_a_mismatch(cloud: Standalone, ec2: Any) -> None:
    ec2.create_fleet(**kit.fleet_request(cloud, ClientToken="run.1.1"))
    tags = [{"ResourceType": "instance", "Tags": kit.pairs({"spotrelay:run": "other"})}]

    told = kit.refusal(ec2.create_fleet, **kit.fleet_request(cloud, ClientToken="run.1.1", TagSpecifications=tags))

    assert told[:2] == ("IdempotentParameterMismatch", 400)
    assert len(cloud.ec2.instances()) == 1


def test_sixteen_at_once_with_one_token_make_one_machine(cloud: Standalone) -> None:
    request = kit.fleet_request(cloud, ClientToken="race")
    barrier = threading.Barrier(16)

    def create(_: int) -> str:
        ec2 = kit.client(cloud)
        barrier.wait()
        return str(ec2.create_fleet(**request)["Instances"][0]["InstanceIds"][0])

    with ThreadPoolExecutor(16) as racers:
        made = set(racers.map(create, range(16)))

    assert len(made) == len(cloud.ec2.instances()) == 1


def test_run_instances_is_idempotent_within_a_zone_only(cloud: Standalone, ec2: Any) -> None:
    kit.template(cloud)
    request: dict[str, Any] = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": "zonal",
        "LaunchTemplate": {"LaunchTemplateId": kit.TEMPLATE},
    }
    here, there = kit.subnets(cloud)["us-east-1a"], kit.subnets(cloud)["us-east-1b"]

    def run(**place: Any) -> str:
        return str(ec2.run_instances(**request, **place)["Instances"][0]["InstanceId"])

    first = run(SubnetId=here)

    assert run(SubnetId=here) == first
    assert run(SubnetId=there) != first
    anywhere = run()
    assert anywhere != first
    assert run() == anywhere
    assert kit.refusal(ec2.run_instances, **{**request, "SubnetId": here, "InstanceType": "g6.xlarge"})[0] == (
        "IdempotentParameterMismatch"
    )


def test_a_dry_run_launches_nothing_and_uses_up_no_token(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud, ClientToken="dry")

    assert kit.refusal(ec2.create_fleet, **request, DryRun=True)[:2] == ("DryRunOperation", 412)
    assert cloud.ec2.instances() == []
    assert ec2.create_fleet(**request)["Instances"]


def test_beyond_the_request_rate_everything_is_throttled_until_the_bucket_fills(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.limit_requests(per_second=0.001, burst=2)

    assert [bool(ec2.describe_instances()) for _ in range(2)] == [True, True]
    assert kit.refusal(ec2.describe_instances)[:2] == ("RequestLimitExceeded", 503)
    assert ec2.describe_tags()["Tags"] == []
    cloud.ec2.limit_requests(None)
    assert ec2.describe_instances()["Reservations"] == []


def test_a_fleet_is_told_of_to_those_who_name_it(cloud: Standalone, ec2: Any) -> None:
    fleet = ec2.create_fleet(**kit.fleet_request(cloud))["FleetId"]

    assert ec2.describe_fleets()["Fleets"] == []
    told = ec2.describe_fleets(FleetIds=[fleet])["Fleets"][0]
    assert (told["Type"], told["FulfilledCapacity"]) == ("instant", 1.0)


def test_a_pool_may_run_short_after_some_machines_and_a_whole_fleet_goes_where_there_is_room(
    cloud: Standalone, ec2: Any
) -> None:
    cloud.ec2.refuse({"zone": "us-east-1a"}, NONE_LEFT, after=1)
    whole = {"SingleAvailabilityZone": True, "SingleInstanceType": True, "MinTargetCapacity": 2}
    target = {"TotalTargetCapacity": 2, "DefaultTargetCapacityType": "spot"}
    options = {"AllocationStrategy": "capacity-optimized-prioritized", **whole}

    answer = ec2.create_fleet(**kit.fleet_request(cloud, SpotOptions=options, TargetCapacitySpecification=target))

    assert len(set(zones_of(answer))) == 1
    assert len(zones_of(answer)) == 2
    assert len(cloud.ec2.instances()) == 2


def test_an_override_may_name_a_placement_group(cloud: Standalone, ec2: Any) -> None:
    request = kit.fleet_request(cloud)
    for override in request["LaunchTemplateConfigs"][0]["Overrides"]:
        override["Placement"] = {"GroupName": "close"}

    ec2.create_fleet(**request)

    (machine,) = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert machine["Placement"]["GroupName"] == "close"
