"""A part of botocore's own EC2 model: the operations we call, with the shapes that they reach.

The whole model holds more than eight hundred operations, and parsing it is most of what making
an EC2 client costs. botocore looks into AWS_DATA_PATH before its own directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

API_VERSION = "2016-11-15"
OPERATIONS = (
    "CreateFleet",
    "CreateTags",
    "DescribeAvailabilityZones",
    "DescribeFleetInstances",
    "DescribeFleets",
    "DescribeInstances",
    "DescribeInstanceStatus",
    "DescribeInstanceTypes",
    "DescribeLaunchTemplateVersions",
    "DescribeSpotPriceHistory",
    "DescribeSubnets",
    "GetSpotPlacementScores",
    "RunInstances",
    "TerminateInstances",
)


def trimmed_ec2_model() -> dict[str, str]:
    """Files below a data path, by name: the model and its paginators."""
    from botocore.loaders import Loader  # not needed to check freshness

    loader = Loader(include_default_search_paths=True)
    model = loader.load_service_model("ec2", "service-2", API_VERSION)
    pages = loader.load_service_model("ec2", "paginators-1", API_VERSION)["pagination"]
    operations = {name: _without_prose(model["operations"][name]) for name in OPERATIONS}
    reached = _reach(model["shapes"], operations)
    small = {
        "version": model["version"],
        "metadata": model["metadata"],
        "operations": operations,
        "shapes": {name: _without_prose(model["shapes"][name]) for name in sorted(reached)},
    }
    folder = f"ec2/{API_VERSION}"
    return {
        f"{folder}/service-2.json": _compact(small),
        f"{folder}/paginators-1.json": _compact({"pagination": {n: pages[n] for n in OPERATIONS if n in pages}}),
        f"{folder}/waiters-2.json": _compact({"version": 2, "waiters": {}}),
    }


def _reach(shapes: Mapping[str, Any], operations: Mapping[str, Any]) -> set[str]:
    todo = list(_references(operations))
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo.extend(_references(shapes[name]))
    return reached


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        name = value.get("shape")
        if isinstance(name, str):
            yield name
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _without_prose(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_prose(item) for key, item in value.items() if not _is_prose(key, item)}
    if isinstance(value, list):
        return [_without_prose(item) for item in value]
    return value


def _is_prose(key: str, item: Any) -> bool:
    return key == "documentation" and isinstance(item, str)


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
