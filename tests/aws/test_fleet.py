"""The CreateFleet request of a launch, and what its answer comes to."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import validate_parameters

from spotrelay.aws import fleet
from spotrelay.aws.places import Place, Places, parse_places
from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import FailureScope, Pool, Rung
from spotrelay.testing.contracts.samples import NOON

PLACES = Places(
    {
        "us-east-1": Place("lt-0home", "3", {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}),
        "eu-west-1": Place("lt-0away", "1", {"eu-west-1a": "subnet-e"}),
    }
)
A = Pool("us-east-1", "us-east-1a", "g5.xlarge")
B = Pool("us-east-1", "us-east-1b", "g5.xlarge")
A2 = Pool("us-east-1", "us-east-1a", "g5.2xlarge")
AWAY = Pool("eu-west-1", "eu-west-1a", "g5.xlarge", "on-demand")


def request(*pools: Pool) -> dict[str, Any]:
    return fleet.prepare(PLACES, "Spotrelay", "r1", 3, 7, Rung(pools or (B, A), "test"))


def error(code: str, override: dict[str, str] | None = None) -> dict[str, Any]:
    beside = {"LaunchTemplateAndOverrides": {"Overrides": override}} if override is not None else {}
    return {"ErrorCode": code, "ErrorMessage": f"{code} said", "Lifecycle": "spot"} | beside


def told(answer: Any) -> list[tuple[Pool, FailureScope, str]]:
    return [(refusal.pool, refusal.scope, refusal.code) for refusal in answer.refusals]


def test_a_spot_launch_asks_for_one_machine_in_the_order_of_its_pools() -> None:
    assert request()["CreateFleet"] == {
        "Type": "instant",
        "ClientToken": "r1.3.7",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
        "SpotOptions": {
            "AllocationStrategy": "capacity-optimized-prioritized",
            "InstanceInterruptionBehavior": "terminate",
        },
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-0home", "Version": "3"},
                "Overrides": [
                    {"InstanceType": "g5.xlarge", "SubnetId": "subnet-b", "Priority": 0.0},
                    {"InstanceType": "g5.xlarge", "SubnetId": "subnet-a", "Priority": 1.0},
                ],
            }
        ],
        "TagSpecifications": [
            {
                "ResourceType": "instance",
                "Tags": [
                    {"Key": "spotrelay:managed", "Value": "Spotrelay"},
                    {"Key": "spotrelay:run", "Value": "r1"},
                    {"Key": "spotrelay:generation", "Value": "3"},
                    {"Key": "spotrelay:launch", "Value": "7"},
                    {"Key": "Name", "Value": "spotrelay-r1-3"},
                ],
            }
        ],
    }


def test_an_on_demand_launch_goes_to_its_region_with_that_regions_template() -> None:
    prepared = request(AWAY)

    assert prepared["Region"] == "eu-west-1"
    assert prepared["CreateFleet"]["OnDemandOptions"] == {"AllocationStrategy": "prioritized"}
    assert prepared["CreateFleet"]["TargetCapacitySpecification"]["DefaultTargetCapacityType"] == "on-demand"
    assert "SpotOptions" not in prepared["CreateFleet"]
    assert "lt-0away" in json.dumps(prepared)


@pytest.mark.parametrize("pools", [(A,), (A, B, A2), (AWAY,)])
def test_a_request_is_what_ec2s_own_model_describes(pools: tuple[Pool, ...]) -> None:
    ec2 = botocore.session.get_session().get_service_model("ec2")
    model: Any = ec2.operation_model("CreateFleet").input_shape
    stored = json.loads(json.dumps(request(*pools)))

    validate_parameters(stored["CreateFleet"], model)

    assert set(_names(stored["CreateFleet"])) <= set(_named(model))


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [name for key, inner in value.items() for name in (key, *_names(inner))]
    return [name for inner in value for name in _names(inner)] if isinstance(value, list) else []


def _named(shape: Any, depth: int = 6) -> list[str]:
    if depth and shape.type_name == "structure":
        return [n for key, inner in shape.members.items() for n in (key, *_named(inner, depth - 1))]
    return _named(shape.member, depth - 1) if depth and shape.type_name == "list" else []


def test_a_token_fits_even_for_the_longest_id() -> None:
    prepared = fleet.prepare(PLACES, "Spotrelay", "r" * 40, 999_999, 999_999, Rung((A,), "test"))

    assert len(prepared["CreateFleet"]["ClientToken"]) <= 64


@pytest.mark.parametrize(
    ("pools", "problem"),
    [
        ((A, AWAY), "one region and one market"),
        ((A, Pool("us-east-1", "us-east-1a", "g5.xlarge", "on-demand")), "one region and one market"),
        ((Pool("us-east-1", "us-east-1f", "g5.xlarge"),), "no subnet in zone us-east-1f"),
        ((Pool("ap-south-1", "ap-south-1a", "g5.xlarge"),), "does not reach region ap-south-1"),
    ],
)
def test_a_rung_that_one_request_cannot_climb_is_refused(pools: tuple[Pool, ...], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        request(*pools)


def test_errors_without_a_machine_are_a_no_to_each_pool() -> None:
    answer = fleet.read_answer(
        {
            "Errors": [
                error("InsufficientInstanceCapacity", {"InstanceType": "g5.xlarge", "SubnetId": "subnet-a"}),
                error("Server.UnfulfillableCapacity", {"InstanceType": "g5.xlarge", "AvailabilityZone": "us-east-1b"}),
            ],
            "Instances": [],
        },
        request(),
        NOON,
    )

    assert answer.instance_id is None
    assert told(answer) == [
        (A, FailureScope.POOL, "InsufficientInstanceCapacity"),
        (B, FailureScope.POOL, "UnfulfillableCapacity"),
    ]
    assert answer.refusals[0].message == "InsufficientInstanceCapacity said"
    assert answer.refusals[0].at == NOON


def test_errors_and_a_machine_are_both_heard() -> None:
    answer = fleet.read_answer(
        {
            "Errors": [error("InsufficientInstanceCapacity", {"InstanceType": "g5.xlarge", "SubnetId": "subnet-b"})],
            "Instances": [
                {
                    "LaunchTemplateAndOverrides": {"Overrides": {"InstanceType": "g5.xlarge", "SubnetId": "subnet-a"}},
                    "Lifecycle": "spot",
                    "InstanceIds": ["i-0123456789abcdef0"],
                    "InstanceType": "g5.xlarge",
                }
            ],
        },
        request(),
        NOON,
    )

    assert (answer.instance_id, answer.pool) == ("i-0123456789abcdef0", A)
    assert told(answer) == [(B, FailureScope.POOL, "InsufficientInstanceCapacity")]


def test_the_machines_own_type_and_zone_say_which_pool_it_is_in() -> None:
    instance = {"InstanceIds": ["i-1"], "InstanceType": "g5.2xlarge", "AvailabilityZone": "us-east-1a"}

    assert fleet.read_answer({"Instances": [instance]}, request(A, B, A2), NOON).pool == A2


def test_an_error_about_a_type_is_about_all_its_pools_and_one_about_nothing_about_all() -> None:
    by_type = {"Errors": [error("Unsupported", {"InstanceType": "g5.xlarge"}), error("VcpuLimitExceeded")]}

    answer = fleet.read_answer(by_type, request(A, B, A2), NOON)

    assert told(answer)[:2] == [(A, FailureScope.POOL, "Unsupported"), (B, FailureScope.POOL, "Unsupported")]
    assert told(answer)[2:] == [(p, FailureScope.QUOTA, "VcpuLimitExceeded") for p in (A, B, A2)]


def test_a_type_that_a_zone_does_not_offer_does_not_stop_the_run() -> None:
    answer = fleet.read_answer(
        {"Errors": [error("InvalidFleetConfiguration", {"InstanceType": "g5.xlarge", "SubnetId": "subnet-a"})]},
        request(A),
        NOON,
    )

    assert told(answer) == [(A, FailureScope.POOL, "InvalidFleetConfiguration")]


@pytest.mark.parametrize("silence", [{}, {"Errors": [], "Instances": []}, {"Instances": [{"InstanceIds": []}]}])
def test_an_answer_that_says_nothing_is_a_no_of_unknown_scope(silence: dict[str, Any]) -> None:
    answer = fleet.read_answer(silence, request(), NOON)

    assert told(answer) == [(B, FailureScope.UNKNOWN, "NoAnswer"), (A, FailureScope.UNKNOWN, "NoAnswer")]


def test_tags_that_are_not_ours_read_as_nothing() -> None:
    machine = fleet.read_machine(
        {
            "InstanceId": "i-1",
            "State": {"Name": "running"},
            "Tags": [{"Key": "spotrelay:generation", "Value": "three"}, {"Key": "spotrelay:launch", "Value": "²"}],
        },
        "us-east-1",
    )

    assert (machine.run_id, machine.generation, machine.launch) == ("", 0, 0)
    assert machine.pool == Pool("us-east-1", "", "", "on-demand")


def test_places_come_from_what_the_stack_writes() -> None:
    text = '{"us-east-1": {"launch_template": "lt-1", "version": "2", "subnets": {"us-east-1a": "subnet-1"}}}'

    places = parse_places(text)

    assert places.zones == (("us-east-1", "us-east-1a"),)
    assert places.place("us-east-1") == Place("lt-1", "2", {"us-east-1a": "subnet-1"})


@pytest.mark.parametrize("text", ["", "[]", '{"us-east-1": {}}', '{"us-east-1": {"launch_template": 1}}'])
def test_places_that_nobody_of_us_wrote_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="places"):
        parse_places(text)


def test_a_gang_is_asked_for_as_a_whole_in_one_place() -> None:
    rung = Rung((B, A), "test", nodes=4, placement_group="close")

    spot = fleet.prepare(PLACES, "Spotrelay", "r1", 3, 7, rung)["CreateFleet"]
    on_demand = fleet.prepare(PLACES, "Spotrelay", "r1", 3, 7, Rung((AWAY,), "test", nodes=4))["CreateFleet"]

    whole = {"SingleInstanceType": True, "SingleAvailabilityZone": True, "MinTargetCapacity": 4}
    assert spot["TargetCapacitySpecification"]["TotalTargetCapacity"] == 4
    assert spot["SpotOptions"].items() >= whole.items()
    assert on_demand["OnDemandOptions"].items() >= whole.items()
    overrides = spot["LaunchTemplateConfigs"][0]["Overrides"]
    assert [each["Placement"] for each in overrides] == [{"GroupName": "close"}] * 2
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("CreateFleet").input_shape
    for asked in (spot, on_demand):
        validate_parameters(asked, shape)


def test_a_gangs_answer_names_the_machines_of_one_pool() -> None:
    prepared = fleet.prepare(PLACES, "Spotrelay", "r1", 3, 7, Rung((B, A), "test", nodes=3))
    answer = {
        "Instances": [
            {"InstanceIds": ["i-1", "i-2"], "InstanceType": "g5.xlarge", "SubnetId": "subnet-a"},
            {"InstanceIds": ["i-3"], "InstanceType": "g5.xlarge", "SubnetId": "subnet-b"},
        ]
    }

    found = fleet.read_answer(answer, prepared, NOON)

    assert (found.pool, found.instance_ids) == (A, ("i-1", "i-2"))
