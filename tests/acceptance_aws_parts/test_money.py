"""What it costs is counted so that not seeing something never makes it cheaper."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tests.acceptance_aws.failure import CeilingReached, NotReady
from tests.acceptance_aws.machines import Machine
from tests.acceptance_aws.money import Prices, ask_prices, check_ceiling, price_request, spent

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PRICES = Prices({("us-east-1a", "t3a.medium"): 0.01, ("us-east-1b", "t3a.medium"): 0.03}, volume_gib=0)
BESIDE = PRICES.hourly("us-east-1a", "t3a.medium") - 0.01
MACHINE = Machine("i-1", "run", 1, "running", "t3a.medium", "us-east-1a", START)


@pytest.fixture
def ec2() -> Any:
    return boto3.client("ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


def test_a_machine_that_runs_is_billed_until_now() -> None:
    assert spent([MACHINE], PRICES, START + 2 * HOUR) == pytest.approx(2 * (0.01 + BESIDE))


def test_a_machine_that_ended_is_billed_until_it_was_seen_ending() -> None:
    ended = replace(MACHINE, state="terminated", over_at=START + HOUR)

    assert spent([ended], PRICES, START + 9 * HOUR) == pytest.approx(0.01 + BESIDE)


def test_a_pool_without_a_known_price_counts_as_the_dearest() -> None:
    elsewhere = replace(MACHINE, zone="us-east-1f")

    assert spent([elsewhere], PRICES, START + HOUR) == pytest.approx(0.03 + BESIDE)
    assert PRICES.dearest == pytest.approx(0.03 + BESIDE)


def test_a_moment_costs_a_minute() -> None:
    assert spent([MACHINE], PRICES, START) == pytest.approx((0.01 + BESIDE) / 60)


def test_volume_and_address_cost_too() -> None:
    bigger = Prices(PRICES.spot, volume_gib=200)

    assert BESIDE > 0
    assert bigger.hourly("us-east-1a", "t3a.medium") > PRICES.hourly("us-east-1a", "t3a.medium")


def test_the_ceiling_ends_it_before_it_is_passed() -> None:
    check_ceiling(0.4, 0.5)

    with pytest.raises(CeilingReached, match=r"0\.495 dollars, and 0\.50 is the ceiling"):
        check_ceiling(0.495, 0.5)


def test_the_newest_price_of_a_pool_counts(ec2: Any) -> None:
    rows = [row("0.02", START), row("0.05", START + HOUR), row("0.01", START - HOUR)]
    with Stubber(ec2) as stub:
        stub.add_response(
            "describe_spot_price_history", {"SpotPriceHistory": rows}, price_request(("t3a.medium",), START)
        )

        prices = ask_prices(ec2, ("t3a.medium",), 20, START)

    assert dict(prices.spot) == {("us-east-1a", "t3a.medium"): 0.05}


def test_types_without_a_price_are_refused_before_anything_is_made(ec2: Any) -> None:
    with Stubber(ec2) as stub:
        stub.add_response("describe_spot_price_history", {"SpotPriceHistory": []})

        with pytest.raises(NotReady, match=r"no Spot price for t9x\.large here"):
            ask_prices(ec2, ("t9x.large",), 20, START)


def row(price: str, at: datetime) -> dict[str, Any]:
    return {"AvailabilityZone": "us-east-1a", "InstanceType": "t3a.medium", "SpotPrice": price, "Timestamp": at}
