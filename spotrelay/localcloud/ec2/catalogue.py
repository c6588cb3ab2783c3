"""Instance types, zones and prices of the emulated regions.

Sizes are those of the EC2 instance type pages. Prices are of the right order and fixed by this file: good for
comparing pools with one another, no price list.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

_SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "12xlarge": 48, "16xlarge": 64}
_SIZES |= {"24xlarge": 96, "48xlarge": 192, "nano": 2, "micro": 2, "small": 2, "medium": 2}
_GPU_COUNTS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_BURSTABLE_GIB = {"nano": 0.5, "micro": 1.0, "small": 2.0, "medium": 4.0, "large": 8.0, "xlarge": 16.0, "2xlarge": 32.0}
_PRICE_PERIOD_S = 6 * 3600
_SPOT_SHARE = 0.52


@dataclass(frozen=True)
class Gpu:
    """The accelerators of a family."""

    name: str
    memory_mib: int
    """of one"""


@dataclass(frozen=True)
class Family:
    """A family of instance types."""

    gib_per_vcpu: float
    per_vcpu_hour: float
    """dollars on demand"""
    sizes: tuple[str, ...]
    architecture: str = "x86_64"
    gpu: Gpu | None = None


@dataclass(frozen=True)
class InstanceType:
    """One instance type."""

    name: str
    vcpus: int
    memory_mib: int
    price: float
    """dollars an hour on demand"""
    architecture: str
    gpu: Gpu | None
    gpus: int

    @property
    def quota_family(self) -> str:
        """The family that vCPU quotas count together: G, P, or Standard."""
        letter = self.name[:1].upper()
        return letter if letter in ("G", "P", "F", "X", "I") and self.gpu else "Standard"


_PLAIN = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge")
_GRAPHIC = ("xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge")
_SMALL = ("nano", "micro", "small", "medium", "large", "xlarge", "2xlarge")
_A10G, _L4, _L40S, _T4 = Gpu("A10G", 24576), Gpu("L4", 24576), Gpu("L40S", 49152), Gpu("T4", 16384)

FAMILIES: dict[str, Family] = {
    "c5": Family(2.0, 0.0425, ("large", "xlarge", "2xlarge", "4xlarge", "12xlarge", "24xlarge")),
    "c6i": Family(2.0, 0.0425, _PLAIN),
    "c7g": Family(2.0, 0.0363, _PLAIN[:-1], "arm64"),
    "g4dn": Family(4.0, 0.1315, ("xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"), gpu=_T4),
    "g5": Family(4.0, 0.2515, _GRAPHIC, gpu=_A10G),
    "g6": Family(4.0, 0.2012, _GRAPHIC, gpu=_L4),
    "g6e": Family(8.0, 0.4653, _GRAPHIC, gpu=_L40S),
    "m5": Family(4.0, 0.048, _PLAIN),
    "m6i": Family(4.0, 0.048, _PLAIN),
    "m7g": Family(4.0, 0.0408, _PLAIN[:-1], "arm64"),
    "r5": Family(8.0, 0.063, _PLAIN),
    "t3": Family(4.0, 0.0208, _SMALL),
    "t4g": Family(4.0, 0.0168, _SMALL, "arm64"),
}
_SINGLE: tuple[InstanceType, ...] = (
    InstanceType("p3.2xlarge", 8, 62464, 3.06, "x86_64", Gpu("V100", 16384), 1),
    InstanceType("p3.8xlarge", 32, 249856, 12.24, "x86_64", Gpu("V100", 16384), 4),
    InstanceType("p3.16xlarge", 64, 499712, 24.48, "x86_64", Gpu("V100", 16384), 8),
    InstanceType("p4d.24xlarge", 96, 1179648, 32.77, "x86_64", Gpu("A100", 40960), 8),
    InstanceType("p5.48xlarge", 192, 2097152, 55.04, "x86_64", Gpu("H100", 81920), 8),
)

_ZONES = {"us-east-1": "abcdef", "us-west-2": "abcd", "us-west-1": "ab"}
_COMPASS = {
    "northeast": "ne",
    "northwest": "nw",
    "southeast": "se",
    "southwest": "sw",
    "north": "n",
    "south": "s",
    "east": "e",
    "west": "w",
    "central": "c",
}


@lru_cache(maxsize=1)
def instance_types() -> dict[str, InstanceType]:
    """Every type on offer, by name."""
    made = [_of_family(name, family, size) for name, family in FAMILIES.items() for size in family.sizes]
    return {found.name: found for found in sorted([*made, *_SINGLE], key=lambda found: found.name)}


def _of_family(name: str, family: Family, size: str) -> InstanceType:
    vcpus = _SIZES[size]
    burstable = name.startswith("t")
    gib = _BURSTABLE_GIB[size] if burstable else vcpus * family.gib_per_vcpu
    scale = gib / 4.0 if burstable else float(vcpus)
    gpus = _GPU_COUNTS.get(size, 1) if family.gpu else 0
    price = round(scale * family.per_vcpu_hour * (2 if burstable else 1), 4)
    return InstanceType(f"{name}.{size}", vcpus, int(gib * 1024), price, family.architecture, family.gpu, gpus)


def zones(region: str) -> list[str]:
    """The zones of a region."""
    return [f"{region}{letter}" for letter in _ZONES.get(region, "abc")]


def zone_id(zone: str) -> str:
    """The zone's id, the same for every account: `use1-az1`."""
    area, direction, number = zone[:-1].split("-")[-3:]
    return f"{area}{_COMPASS.get(direction, direction)}{number}-az{ord(zone[-1]) - ord('a') + 1}"


def region_of(zone: str) -> str:
    """The region that a zone lies in."""
    return zone.rstrip("abcdefghijklmnopqrstuvwxyz")


def is_zone(zone: str, region: str) -> bool:
    """Whether the region has such a zone."""
    return zone in zones(region)


def price_changes(instance_type: str, zone: str, start: float, end: float) -> list[tuple[float, float]]:
    """Spot prices of a pool from `start` to `end`, newest first: since when (seconds since 1970), dollars an hour.

    The first one in effect at `start` is among them, as DescribeSpotPriceHistory gives it.
    """
    last = int(end // _PRICE_PERIOD_S)
    first = min(int(start // _PRICE_PERIOD_S), last)
    return [(turn * _PRICE_PERIOD_S, _price(instance_type, zone, turn)) for turn in range(last, first - 1, -1)]


def spot_price(instance_type: str, zone: str, at: float) -> float:
    """Dollars an hour of a Spot pool."""
    return price_changes(instance_type, zone, at, at)[0][1]


def _price(instance_type: str, zone: str, turn: int) -> float:
    drift = _fraction(f"{instance_type}/{zone}") * 0.1 + _fraction(f"{instance_type}/{zone}/{turn}") * 0.02
    return round(instance_types()[instance_type].price * (_SPOT_SHARE + drift), 4)


def _fraction(text: str) -> float:
    """A number from 0 to 1 that belongs to the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32


def depth(instance_type: str, zone: str) -> int:
    """How deep a Spot pool is said to be, from 3 to 9; belongs to the pool for ever."""
    return 3 + int(_fraction(f"depth/{instance_type}/{zone}") * 7)
