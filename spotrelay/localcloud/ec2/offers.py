"""What is on offer: types, where they are sold, Spot prices, placement scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from spotrelay.localcloud.ec2 import catalogue, filters
from spotrelay.localcloud.ec2.capacity import Capacity
from spotrelay.localcloud.ec2.catalogue import InstanceType
from spotrelay.localcloud.ec2.errors import Ec2Error, invalid_value
from spotrelay.localcloud.ec2.filters import Values
from spotrelay.localcloud.ec2.records import SPOT, Pool

_HISTORY_S = 90 * 86400.0
_FEW_TYPES = 3
_LOW_SCORE = 3
_PRODUCT = "Linux/UNIX"

_TYPE_FILTERS: dict[str, Values] = {
    "instance-type": lambda kind: [kind.name],
    "current-generation": lambda kind: ["true"],
    "processor-info.supported-architecture": lambda kind: [kind.architecture],
    "vcpu-info.default-vcpus": lambda kind: [str(kind.vcpus)],
    "supported-usage-class": lambda kind: ["on-demand", "spot"],
}


def instance_types(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeInstanceTypes."""
    asked = request.get("InstanceTypes") or []
    offered = catalogue.instance_types()
    missing = sorted(set(asked) - set(offered))
    if missing:
        text = f"The following supplied instance types do not exist: [{', '.join(missing)}]"
        raise Ec2Error("InvalidInstanceType", text)
    found = [kind for kind in offered.values() if not asked or kind.name in asked]
    some, following = filters.page(filters.select(found, request.get("Filters"), _TYPE_FILTERS), request)
    return {"InstanceTypes": [_type(kind) for kind in some], "NextToken": following}


def _type(kind: InstanceType) -> dict[str, Any]:
    told: dict[str, Any] = {
        "InstanceType": kind.name,
        "CurrentGeneration": True,
        "FreeTierEligible": False,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "Hypervisor": "nitro",
        "ProcessorInfo": {"SupportedArchitectures": [kind.architecture]},
        "VCpuInfo": {"DefaultVCpus": kind.vcpus},
        "MemoryInfo": {"SizeInMiB": kind.memory_mib},
        "InstanceStorageSupported": False,
        "HibernationSupported": False,
        "BurstablePerformanceSupported": kind.name.startswith("t"),
    }
    if kind.gpu is None:
        return told
    memory = {"SizeInMiB": kind.gpu.memory_mib}
    gpu = {"Name": kind.gpu.name, "Manufacturer": "NVIDIA", "Count": kind.gpus, "MemoryInfo": memory}
    return {**told, "GpuInfo": {"Gpus": [gpu], "TotalGpuMemoryInMiB": kind.gpu.memory_mib * kind.gpus}}


def offerings(region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of DescribeInstanceTypeOfferings."""
    kind = str(request.get("LocationType", "region"))
    places = {
        "region": [region],
        "availability-zone": catalogue.zones(region),
        "availability-zone-id": [catalogue.zone_id(zone) for zone in catalogue.zones(region)],
    }.get(kind)
    if places is None:
        raise invalid_value(kind, "LocationType", "This emulation has no outposts.")
    rows = [
        {"InstanceType": name, "LocationType": kind, "Location": place}
        for name in catalogue.instance_types()
        for place in places
    ]
    known: dict[str, Values] = {"instance-type": lambda r: [r["InstanceType"]], "location": lambda r: [r["Location"]]}
    some, following = filters.page(filters.select(rows, request.get("Filters"), known), request)
    return {"InstanceTypeOfferings": some, "NextToken": following}


def price_history(region: str, request: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Answer of DescribeSpotPriceHistory, newest first."""
    end = min(_seconds(request.get("EndTime"), now), now)
    start = max(_seconds(request.get("StartTime"), now - _HISTORY_S), now - _HISTORY_S)
    asked = request.get("InstanceTypes") or list(catalogue.instance_types())
    types = [name for name in asked if name in catalogue.instance_types()]
    zones = [zone for zone in catalogue.zones(region) if request.get("AvailabilityZone", zone) == zone]
    product = request.get("ProductDescriptions") or [_PRODUCT]
    rows = [
        {
            "AvailabilityZone": zone,
            "AvailabilityZoneId": catalogue.zone_id(zone),
            "InstanceType": name,
            "ProductDescription": _PRODUCT,
            "SpotPrice": f"{price:.6f}",
            "Timestamp": float(since),
        }
        for name in types
        for zone in zones
        for since, price in catalogue.price_changes(name, zone, min(start, end), end)
        if _PRODUCT in product or f"{_PRODUCT} (Amazon VPC)" in product
    ]
    rows.sort(key=lambda row: (-row["Timestamp"], row["InstanceType"], row["AvailabilityZone"]))
    known: dict[str, Values] = {
        "availability-zone": lambda row: [row["AvailabilityZone"]],
        "instance-type": lambda row: [row["InstanceType"]],
        "product-description": lambda row: [row["ProductDescription"]],
        "spot-price": lambda row: [row["SpotPrice"]],
    }
    some, following = filters.page(filters.select(rows, request.get("Filters"), known), request, fewest=1)
    return {"SpotPriceHistory": some, "NextToken": following or ""}


def _seconds(given: Any, otherwise: float) -> float:
    return given.timestamp() if isinstance(given, datetime) else otherwise


def placement_scores(capacity: Capacity, region: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer of GetSpotPlacementScores: from 1 to 10, and low for fewer than three types.

    Source:
        EC2 User Guide, "Spot placement score".
    """
    types = [name for name in request.get("InstanceTypes") or [] if name in catalogue.instance_types()]
    if not types:
        raise Ec2Error("MissingParameter", "The request must contain InstanceTypes that this emulation offers")
    if int(request["TargetCapacity"]) < 1:
        raise invalid_value(request["TargetCapacity"], "TargetCapacity")
    regions = request.get("RegionNames") or [region]
    rows: list[dict[str, Any]] = []
    for name in regions:
        scores = {zone: _score(capacity, name, zone, types) for zone in catalogue.zones(name)}
        if request.get("SingleAvailabilityZone"):
            rows += [
                {"Region": name, "AvailabilityZoneId": catalogue.zone_id(zone), "Score": score}
                for zone, score in scores.items()
            ]
        else:
            rows.append({"Region": name, "Score": max(scores.values())})
    rows.sort(key=lambda row: -int(row["Score"]))
    some, following = filters.page(rows, request, fewest=1)
    return {"SpotPlacementScores": some, "NextToken": following}


def _score(capacity: Capacity, region: str, zone: str, types: Sequence[str]) -> int:
    best = max(capacity.score(Pool(region, zone, name, SPOT)) for name in types)
    return min(best, _LOW_SCORE) if len(set(types)) < _FEW_TYPES else best
