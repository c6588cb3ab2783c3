"""What the machines cost so far: instance hours at the Spot price, with volume and address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read
from tests.acceptance_aws.failure import CeilingReached, NotReady
from tests.acceptance_aws.machines import Machine

ADDRESS = 0.005  # dollars an hour for a public IPv4 address
GIB_MONTH = 0.12  # dollars for gp3; most regions ask less
HOURS_A_MONTH = 720
LEAST = timedelta(minutes=1)  # that EC2 bills
MARGIN = 0.01  # dollars that machines may cost while they are being ended


@dataclass(frozen=True)
class Prices:
    """Dollars an hour of each pool."""

    spot: Mapping[tuple[str, str], float]  # by zone and type
    volume_gib: int

    def hourly(self, zone: str, instance_type: str) -> float:
        """Of one machine; for a pool whose price EC2 does not tell, the dearest of all."""
        beside = ADDRESS + self.volume_gib * GIB_MONTH / HOURS_A_MONTH
        return self.spot.get((zone, instance_type), max(self.spot.values())) + beside

    @property
    def dearest(self) -> float:
        """Of the dearest pool."""
        return max(self.hourly(zone, name) for zone, name in self.spot)


def ask_prices(ec2: Any, types: tuple[str, ...], volume_gib: int, now: datetime) -> Prices:
    """The Spot prices of this moment.

    Raises:
        NotReady: EC2 tells no price for any of these types here.
        Unavailable: EC2 does not answer.
    """
    try:
        pages = ec2.get_paginator("describe_spot_price_history").paginate(**price_request(types, now))
        rows = sorted((row for page in pages for row in page["SpotPriceHistory"]), key=lambda row: row["Timestamp"])
    except FAILURES as error:
        raise failed_read(error, "asking for Spot prices") from error
    if not rows:
        raise NotReady(f"EC2 tells no Spot price for {', '.join(types)} here: name other --types, or another --region")
    return Prices({(row["AvailabilityZone"], row["InstanceType"]): float(row["SpotPrice"]) for row in rows}, volume_gib)


def price_request(types: tuple[str, ...], now: datetime) -> dict[str, Any]:
    """Arguments of DescribeSpotPriceHistory."""
    return {"InstanceTypes": list(types), "ProductDescriptions": ["Linux/UNIX"], "StartTime": now}


def spent(machines: Iterable[Machine], prices: Prices, now: datetime) -> float:
    """Dollars so far. A machine that was not seen ending is billed until now, so that not seeing costs nothing."""
    return sum(
        max((m.over_at or now) - m.launched_at, LEAST) / timedelta(hours=1) * prices.hourly(m.zone, m.instance_type)
        for m in machines
    )


def check_ceiling(dollars: float, ceiling: float) -> None:
    """Raises:
    CeilingReached: it is time to end everything.
    """
    if dollars + MARGIN >= ceiling:
        raise CeilingReached(f"the machines have cost {dollars:.3f} dollars, and {ceiling:.2f} is the ceiling")
