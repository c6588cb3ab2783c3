"""The CreateFleet request of one launch, and the reading of what EC2 answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from spotrelay.aws.error_codes import bare, override_scope_of
from spotrelay.aws.places import Places
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Market, Pool, Refusal, Rung
from spotrelay.core.ports import LaunchAnswer, Machine

RESERVED = "RunInstances"  # key of a stored request that goes into a reservation; others have "CreateFleet"


def token_of(request: Mapping[str, Any]) -> str:
    """The ClientToken of a prepared request."""
    return str((request.get(RESERVED) or request["CreateFleet"])["ClientToken"])


def prepare(places: Places, stack: str, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
    """The request with the region it goes to and the pools it speaks about; JSON through and through.

    Raises:
        InvalidInput: the rung's pools are not of one region and one market, or the stack lacks one.
    """
    if len({(pool.region, pool.market) for pool in rung.pools}) != 1:
        raise InvalidInput(f"run {run_id}: one launch goes to one region and one market, not to {rung.pools}")
    region, market = rung.pools[0].region, Market(rung.pools[0].market)
    place = places.place(region)
    if market.is_reserved:
        return _into_reservation(places, stack, run_id, generation, launch, rung)
    group = {"Placement": {"GroupName": rung.placement_group}} if rung.placement_group else {}
    overrides = [
        {
            "InstanceType": pool.instance_type,
            "SubnetId": places.subnet(region, pool.zone),
            "Priority": float(rank),  # the lowest number is tried first
            **group,
        }
        for rank, pool in enumerate(rung.pools)
    ]
    template = {"LaunchTemplateId": place.launch_template, "Version": place.version}
    request = {
        "Type": "instant",
        "ClientToken": f"{run_id}.{generation}.{launch}",
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": rung.nodes,
            "DefaultTargetCapacityType": market.value,
        },
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": _tags(stack, run_id, generation, launch)}],
        **_strategy(market, rung.nodes),
    }
    return {"Region": region, "Pools": [to_json(pool) for pool in rung.pools], "CreateFleet": request}


def _into_reservation(
    places: Places, stack: str, run_id: str, generation: int, launch: int, rung: Rung
) -> dict[str, Any]:
    """RunInstances instead: a fleet takes the target of a reservation from its template alone, which is fixed.

    Source: EC2 API Reference, RunInstances, `CapacityReservationSpecification` and `InstanceMarketOptions`; EC2 User
    Guide, "Launch instances using Capacity Blocks".
    """
    pool = rung.pools[0]
    place = places.place(pool.region)
    group = {"Placement": {"GroupName": rung.placement_group}} if rung.placement_group else {}
    block = {"InstanceMarketOptions": {"MarketType": Market.BLOCK.value}} if pool.market == Market.BLOCK.value else {}
    request = {
        "ClientToken": f"{run_id}.{generation}.{launch}",
        "MinCount": rung.nodes,
        "MaxCount": rung.nodes,
        "InstanceType": pool.instance_type,
        "SubnetId": places.subnet(pool.region, pool.zone),
        "LaunchTemplate": {"LaunchTemplateId": place.launch_template, "Version": place.version},
        "CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": pool.reservation}},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": _tags(stack, run_id, generation, launch)}],
        **group,
        **block,
    }
    return {"Region": pool.region, "Pools": [to_json(pool)], RESERVED: request}


def read_reservation(answer: Mapping[str, Any], request: Mapping[str, Any]) -> LaunchAnswer:
    """What RunInstances came to: all machines that were asked for, or an exception."""
    instance_ids = [str(instance["InstanceId"]) for instance in answer["Instances"]]
    return LaunchAnswer(instance_ids[0], _pools(request)[0], (), tuple(instance_ids[1:]))


def _strategy(market: Market, nodes: int) -> dict[str, Any]:
    together = {"SingleInstanceType": True, "SingleAvailabilityZone": True, "MinTargetCapacity": nodes}
    whole = together if nodes > 1 else {}
    if market is Market.SPOT:
        return {
            "SpotOptions": {
                "AllocationStrategy": "capacity-optimized-prioritized",
                "InstanceInterruptionBehavior": "terminate",
                **whole,
            }
        }
    return {"OnDemandOptions": {"AllocationStrategy": "prioritized", **whole}}


def _tags(stack: str, run_id: str, generation: int, launch: int) -> list[dict[str, str]]:
    tags = {
        "spotrelay:managed": stack,
        "spotrelay:run": run_id,
        "spotrelay:generation": str(generation),
        "spotrelay:launch": str(launch),
        "Name": f"spotrelay-{run_id}-{generation}",
    }
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def read_answer(answer: Mapping[str, Any], request: Mapping[str, Any], now: datetime) -> LaunchAnswer:
    """What an instant fleet came to: refusals by pool, and the machine, or the machines of one pool."""
    refusals = [r for error in answer.get("Errors") or [] for r in _refusals(error, request, now)]
    given = [
        (_pool_of(instance, request), str(instance_id))
        for instance in answer.get("Instances") or []
        for instance_id in instance.get("InstanceIds") or []
    ]
    if given:
        pool, first = given[0]
        together = [instance_id for where, instance_id in given if where == pool]
        most = request["CreateFleet"]["TargetCapacitySpecification"]["TotalTargetCapacity"]
        return LaunchAnswer(first, pool, tuple(refusals), tuple(together[1:most]))
    named = {refusal.pool for refusal in refusals}
    silent = [
        Refusal(pool, FailureScope.UNKNOWN, "NoAnswer", "EC2 gave neither a machine nor an error", now)
        for pool in _pools(request)
        if pool not in named
    ]
    return LaunchAnswer(None, None, (*refusals, *silent))


def refused_whole(
    request: Mapping[str, Any], scope: FailureScope, code: str, message: str, now: datetime
) -> LaunchAnswer:
    """The answer when EC2 refused the request as a whole: a no to each of its pools."""
    return LaunchAnswer(None, None, tuple(Refusal(pool, scope, code, message, now) for pool in _pools(request)))


def read_machine(instance: Mapping[str, Any], region: str) -> Machine:
    """One instance of DescribeInstances. What its tags do not tell is empty or zero."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}
    market, reservation = _bought_how(instance)
    launched = instance.get("LaunchTime")
    return Machine(
        instance["InstanceId"],
        InstanceState(instance["State"]["Name"]),
        tags.get("spotrelay:run", ""),
        _whole(tags.get("spotrelay:generation", "")),
        _whole(tags.get("spotrelay:launch", "")),
        Pool(
            region,
            instance.get("Placement", {}).get("AvailabilityZone", ""),
            instance.get("InstanceType", ""),
            market.value,
            reservation,
        ),
        launched.astimezone(UTC) if launched else None,
    )


def _bought_how(instance: Mapping[str, Any]) -> tuple[Market, str]:
    """The market of a machine, and the reservation that it targets; an open one that it met by chance is no target."""
    target = (instance.get("CapacityReservationSpecification") or {}).get("CapacityReservationTarget") or {}
    reservation = str(target.get("CapacityReservationId") or "")
    if instance.get("InstanceLifecycle") == Market.BLOCK.value:
        return Market.BLOCK, reservation
    if instance.get("InstanceLifecycle") == "spot":
        return Market.SPOT, ""
    return (Market.RESERVED, reservation) if reservation else (Market.ON_DEMAND, "")


def _refusals(error: Mapping[str, Any], request: Mapping[str, Any], now: datetime) -> list[Refusal]:
    """An error beside an override is about its pools; one beside none, about all."""
    code, message = bare(error.get("ErrorCode", "")), error.get("ErrorMessage", "")
    override = (error.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {}
    about = [pool for pool in _pools(request) if _speaks_of(override, pool, request)]
    return [Refusal(pool, override_scope_of(code), code, message, now) for pool in about or _pools(request)]


def _pool_of(instance: Mapping[str, Any], request: Mapping[str, Any]) -> Pool:
    override = dict((instance.get("LaunchTemplateAndOverrides") or {}).get("Overrides") or {})
    for name in ("InstanceType", "AvailabilityZone", "SubnetId"):
        if instance.get(name):
            override[name] = instance[name]
    pools = _pools(request)
    return next((pool for pool in pools if _speaks_of(override, pool, request)), pools[0])


def _speaks_of(override: Mapping[str, Any], pool: Pool, request: Mapping[str, Any]) -> bool:
    """Whether nothing that the override says is against this pool."""
    said = (
        (override.get("InstanceType"), pool.instance_type),
        (override.get("AvailabilityZone"), pool.zone),
        (override.get("SubnetId"), _subnet(pool, request)),
    )
    return any(value for value, _ in said) and all(value in (None, "", ours) for value, ours in said)


def _subnet(pool: Pool, request: Mapping[str, Any]) -> str:
    overrides = request["CreateFleet"]["LaunchTemplateConfigs"][0]["Overrides"]
    return str(overrides[_pools(request).index(pool)]["SubnetId"])


def _pools(request: Mapping[str, Any]) -> tuple[Pool, ...]:
    return from_json(tuple[Pool, ...], request["Pools"], "the pools of a launch request")


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
