"""Which instance types a region offers, as EC2 describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.requirements import InstanceKind

MIB = 1024
CURRENT = [{"Name": "current-generation", "Values": ["true"]}, {"Name": "supported-usage-class", "Values": ["spot"]}]


def instance_kinds(client: Any) -> tuple[InstanceKind, ...]:
    """Every type of the current generation that this client's region sells as Spot, page after page.

    Raises:
        Unavailable, Contention: EC2 does not answer, or does not let us in.
    """
    region = client.meta.region_name
    try:
        pages = client.get_paginator("describe_instance_types").paginate(Filters=CURRENT)
        found = [each for page in pages for each in page["InstanceTypes"]]
    except FAILURES as error:
        raise failed_read(error, f"asking for the instance types of {region}") from error
    return tuple(_kind(each) for each in found if not each.get("BareMetal"))


def _kind(told: Mapping[str, Any]) -> InstanceKind:
    gpus = told.get("GpuInfo", {}).get("Gpus", [])
    count = sum(gpu["Count"] for gpu in gpus)
    memory = min((gpu.get("MemoryInfo", {}).get("SizeInMiB", 0) for gpu in gpus), default=0)
    return InstanceKind(
        told["InstanceType"],
        told["VCpuInfo"]["DefaultVCpus"],
        told["MemoryInfo"]["SizeInMiB"] / MIB,
        tuple(told.get("ProcessorInfo", {}).get("SupportedArchitectures", ())),
        count,
        memory / MIB,
        " and ".join(f"{gpu.get('Manufacturer', '')} {gpu.get('Name', '')}".strip() for gpu in gpus),
    )
