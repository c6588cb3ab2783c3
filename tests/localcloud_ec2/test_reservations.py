"""Launches into capacity reservations and capacity blocks, as the adapter sends them and the emulated EC2 answers."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.aws import fleet
from spotrelay.aws.places import Place, Places
from spotrelay.core.placement import Market, Pool, Rung
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

ODCR, BLOCK = "cr-0123456789abcdef0", "cr-0fedcba9876543210"
ZONE = "us-east-1a"


def request(cloud: Standalone, reservation: str = ODCR, market: Market = Market.RESERVED, **changes: Any) -> Any:
    """What the adapter would send for one machine in this reservation."""
    kit.template(cloud)
    places = Places({"us-east-1": Place(kit.TEMPLATE, "1", kit.subnets(cloud))})
    pool = Pool("us-east-1", changes.pop("zone", ZONE), changes.pop("kind", "g5.xlarge"), market.value, reservation)
    return fleet.prepare(places, "Stack", "run-1", 1, changes.pop("launch", 1), Rung((pool,), "test"))


def test_a_machine_is_launched_into_its_reservation_and_shows_it(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.reserve(ODCR, "g5.xlarge", ZONE)
    prepared = request(cloud)

    answer = fleet.read_reservation(ec2.run_instances(**prepared[fleet.RESERVED]), prepared)

    assert answer.pool is not None and answer.pool.reservation == ODCR and answer.refusals == ()
    (shown,) = ec2.describe_instances(InstanceIds=[answer.instance_id])["Reservations"][0]["Instances"]
    assert shown["CapacityReservationId"] == ODCR and "InstanceLifecycle" not in shown
    assert fleet.read_machine(shown, "us-east-1").pool == answer.pool


def test_the_same_token_is_the_same_machine(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.reserve(ODCR, "g5.xlarge", ZONE, count=5)
    prepared = request(cloud)

    answers = [fleet.read_reservation(ec2.run_instances(**prepared[fleet.RESERVED]), prepared) for _ in range(3)]

    assert len({answer.instance_id for answer in answers}) == 1


def test_a_block_is_launched_as_one(cloud: Standalone, ec2: Any) -> None:
    cloud.ec2.reserve(BLOCK, "g5.xlarge", ZONE, block=True)
    prepared = request(cloud, BLOCK, Market.BLOCK)

    answer = fleet.read_reservation(ec2.run_instances(**prepared[fleet.RESERVED]), prepared)

    (shown,) = ec2.describe_instances(InstanceIds=[answer.instance_id])["Reservations"][0]["Instances"]
    assert shown["InstanceLifecycle"] == "capacity-block"
    assert fleet.read_machine(shown, "us-east-1").pool.market == "capacity-block"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"launch": 2}, "ReservationCapacityExceeded"),
        ({"reservation": "cr-00000000000000000", "launch": 2}, "InvalidCapacityReservationId.NotFound"),
        ({"kind": "g5.2xlarge", "launch": 2}, "InvalidParameterValue"),
        ({"zone": "us-east-1b", "launch": 2}, "InvalidParameterValue"),
        ({"market": Market.BLOCK, "launch": 2}, "InvalidParameterCombination"),
    ],
)
def test_a_reservation_that_is_full_or_another_refuses(
    cloud: Standalone, ec2: Any, change: dict[str, Any], code: str
) -> None:
    cloud.ec2.reserve(ODCR, "g5.xlarge", ZONE)
    ec2.run_instances(**request(cloud)[fleet.RESERVED])

    prepared = request(cloud, **change)

    assert kit.refusal(ec2.run_instances, **prepared[fleet.RESERVED])[0] == code
