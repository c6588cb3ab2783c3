"""CreateFleet of the type instant: many pools in one request, an answer at once.

HTTP 200 with Errors and no Instances is an ordinary answer, and both may be filled.

Source:
    EC2 User Guide, "Configure an EC2 Fleet of type instant" and "Allocation strategies for Spot Instances"; botocore's
    service model for CreateFleet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spotrelay.localcloud.ec2 import catalogue, permissions, template
from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.launching import Launcher, dry_run, is_exception
from spotrelay.localcloud.ec2.records import ON_DEMAND, SPOT, Blueprint, Fleet, Instance, Pool, new_id

_NO_PRIORITY = float("inf")
_OWN_OF_OVERRIDE = ("InstanceType", "SubnetId", "ImageId", "Placement")
_TAGGABLE = ("fleet", "instance", "volume", "network-interface", "spot-instances-request")


@dataclass(frozen=True)
class _Candidate:
    """One override, ready to be launched, or refused already."""

    specification: Mapping[str, Any]
    override: Mapping[str, Any]
    plan: Blueprint | None
    refusal: Ec2Error | None
    market: str

    @property
    def weight(self) -> float:
        return float(self.override.get("WeightedCapacity") or 1.0)

    @property
    def priority(self) -> float:
        given = self.override.get("Priority")
        return _NO_PRIORITY if given is None else float(given)


@dataclass
class _Round:
    """What one market's part of a fleet comes to."""

    chosen: list[_Candidate] = field(default_factory=list)
    errors: list[tuple[_Candidate, Ec2Error]] = field(default_factory=list)
    capacity: float = 0.0


def create_fleet(launcher: Launcher, request: dict[str, Any], caller: str, region: str) -> dict[str, Any]:
    """Launch what there is capacity for, at once.

    Raises:
        Ec2Error: the request as a whole is refused; nothing was launched.
    """
    _check(request)
    markets = _capacities(request["TargetCapacitySpecification"])
    tags = _tags(request)
    candidates = {market: _candidates(launcher, request, region, market, tags) for market in markets}
    plans = [c.plan for some in candidates.values() for c in some if c.plan is not None]
    needs = permissions.to_create_fleet(launcher.account, plans, region, tags)
    permissions.require(launcher.world, caller, region, needs)
    dry_run(request)
    allowed = {market: [_authorized(launcher, caller, region, c) for c in some] for market, some in candidates.items()}
    with launcher.store.lock:
        known = launcher.store.answered("CreateFleet", region, "", request)
        if known is not None:
            return dict(known)
        rounds = _choose(launcher, request, markets, allowed)
        answer = _launch(launcher, request, region, rounds, tags)
        launcher.store.remember("CreateFleet", region, "", request, answer)
        return answer


def _check(request: Mapping[str, Any]) -> None:
    if request.get("Type", "maintain") != "instant":
        raise Ec2Error("UnsupportedOperation", "This emulation knows fleets of type instant only")
    behavior = (request.get("SpotOptions") or {}).get("InstanceInterruptionBehavior", "terminate")
    if behavior != "terminate":
        raise Ec2Error("UnsupportedOperation", "This emulation knows the interruption behavior terminate only")
    if not request["LaunchTemplateConfigs"]:
        raise Ec2Error("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")
    for name in ("SpotOptions", "OnDemandOptions"):
        options = request.get(name) or {}
        one_place = options.get("SingleInstanceType") or options.get("SingleAvailabilityZone")
        if options.get("MinTargetCapacity") and not one_place:
            raise Ec2Error(
                "InvalidParameterCombination",
                f"{name}: MinTargetCapacity needs SingleAvailabilityZone or SingleInstanceType",
            )


def _capacities(target: Mapping[str, Any]) -> dict[str, int]:
    """How much of each market; on-demand is launched first."""
    total = int(target["TotalTargetCapacity"])
    on_demand, spot = int(target.get("OnDemandTargetCapacity") or 0), int(target.get("SpotTargetCapacity") or 0)
    rest = total - on_demand - spot
    if total < 1 or rest < 0:
        raise Ec2Error("InvalidParameterValue", "TotalTargetCapacity is less than the capacities that make it up")
    default = target.get("DefaultTargetCapacityType")
    if rest and default not in (SPOT, ON_DEMAND):
        raise Ec2Error("MissingParameter", "The request must contain the parameter DefaultTargetCapacityType")
    both = {ON_DEMAND: on_demand, SPOT: spot}
    if rest:
        both[str(default)] += rest
    return {market: capacity for market, capacity in both.items() if capacity}


def _tags(request: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for specification in request.get("TagSpecifications") or []:
        kind = str(specification.get("ResourceType", ""))
        if kind not in _TAGGABLE:
            raise Ec2Error(
                "InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation."
            )
        given = {str(tag["Key"]): str(tag.get("Value", "")) for tag in specification.get("Tags") or []}
        template.check_tag_keys(given)
        found.setdefault(kind, {}).update(given)
    return found


def _candidates(
    launcher: Launcher, request: Mapping[str, Any], region: str, market: str, tags: Mapping[str, Mapping[str, str]]
) -> list[_Candidate]:
    asked = [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in given.items()]}
        for kind, given in tags.items()
        if kind != "fleet"
    ]
    found = []
    for config in request["LaunchTemplateConfigs"]:
        specification = config.get("LaunchTemplateSpecification") or {}
        template.load(launcher.world, specification)  # a template that is not there fails the whole request
        for override in config.get("Overrides") or [{}]:
            own = _own(override, asked)
            try:
                plan = template.merge(launcher.world, region, own, specification, market)
            except Ec2Error as refusal:
                found.append(_Candidate(specification, override, None, _in_a_fleet(refusal), market))
            else:
                found.append(_Candidate(specification, override, plan, None, market))
    return found


def _own(override: Mapping[str, Any], tags: list[dict[str, Any]]) -> dict[str, Any]:
    if "InstanceRequirements" in override:
        raise Ec2Error("UnsupportedOperation", "This emulation chooses no instance types by their attributes")
    own: dict[str, Any] = {name: override[name] for name in _OWN_OF_OVERRIDE if override.get(name)}
    if override.get("AvailabilityZone"):
        own["Placement"] = {**own.get("Placement", {}), "AvailabilityZone": override["AvailabilityZone"]}
    if override.get("MaxPrice"):
        spot = {"SpotOptions": {"MaxPrice": override["MaxPrice"]}}
        own["InstanceMarketOptions"] = {"MarketType": "spot", **spot}
    if tags:
        own["TagSpecifications"] = tags
    return own


def _in_a_fleet(refusal: Ec2Error) -> Ec2Error:
    """A fleet calls a type that a zone does not have a wrong configuration."""
    return Ec2Error("InvalidFleetConfiguration", refusal.message) if refusal.code == "Unsupported" else refusal


def _authorized(launcher: Launcher, caller: str, region: str, candidate: _Candidate) -> _Candidate:
    """RunInstances behind the fleet: what the caller may not launch is an error of the fleet, not of the request."""
    if candidate.plan is None:
        return candidate
    needs = permissions.to_launch(launcher.account, candidate.plan, "CreateFleet")
    try:
        permissions.require(launcher.world, caller, region, needs)
    except Ec2Error as refusal:
        return replace(candidate, refusal=refusal)
    return candidate


def _choose(
    launcher: Launcher,
    request: Mapping[str, Any],
    markets: Mapping[str, int],
    candidates: Mapping[str, Sequence[_Candidate]],
) -> list[_Round]:
    """Claim capacity for both markets before anything is launched.

    Raises:
        Ec2Error: a pool refuses in the form of an exception, and nothing else was given.
    """
    rounds: list[_Round] = []
    planned: list[Pool] = []
    for market, wanted in markets.items():
        options = request.get("SpotOptions" if market == SPOT else "OnDemandOptions") or {}
        ordered = _ordered(launcher, candidates[market], options, market)
        rounds.append(_in_one_place(launcher, ordered, options, float(wanted), planned))
    return rounds


def _in_one_place(
    launcher: Launcher,
    ordered: Sequence[_Candidate],
    options: Mapping[str, Any],
    wanted: float,
    planned: list[Pool],
) -> _Round:
    """Where the fleet must keep to one zone or type: the first of them, in the strategy's order, that has enough."""
    places: dict[tuple[str, str], list[_Candidate]] = {}
    for candidate in ordered:
        places.setdefault(_place_of(candidate, options), []).append(candidate)
    refused: list[tuple[_Candidate, Ec2Error]] = []
    least = float(options.get("MinTargetCapacity") or 0)
    outcome = _Round()
    for some in places.values():
        outcome = _fill(launcher, some, options, wanted, planned)
        refused += outcome.errors
        if outcome.chosen and outcome.capacity >= least:
            break
    return replace(outcome, errors=refused)


def _place_of(candidate: _Candidate, options: Mapping[str, Any]) -> tuple[str, str]:
    pool = candidate.plan.pool if candidate.plan is not None else Pool("", "", "", "")
    kind = pool.instance_type if options.get("SingleInstanceType") else ""
    return kind, pool.zone if options.get("SingleAvailabilityZone") else ""


def _ordered(
    launcher: Launcher, candidates: Sequence[_Candidate], options: Mapping[str, Any], market: str
) -> list[_Candidate]:
    """The order in which the allocation strategy asks the pools."""
    default = "lowest-price"
    strategy = str(options.get("AllocationStrategy", default)).replace("lowestPrice", default)
    now = launcher.clock()

    def price(candidate: _Candidate) -> float:
        plan = candidate.plan
        if plan is None:
            return _NO_PRIORITY
        pool = plan.pool
        if market == SPOT:
            return catalogue.spot_price(pool.instance_type, pool.zone, now) / candidate.weight
        return catalogue.instance_types()[pool.instance_type].price / candidate.weight

    def emptiness(candidate: _Candidate) -> int:
        return -launcher.capacity.score(candidate.plan.pool) if candidate.plan else 0

    keys: dict[str, Callable[[_Candidate], Any]] = {
        "prioritized": lambda c: c.priority,
        # priorities are honoured "on a best-effort basis": here always, so that what is asked first is known
        "capacity-optimized-prioritized": lambda c: c.priority,
        "capacity-optimized": emptiness,
        "price-capacity-optimized": lambda c: (emptiness(c) > -3, price(c)),
        "diversified": lambda c: 0,
        default: price,
    }
    return sorted(candidates, key=keys[strategy])


def _fill(
    launcher: Launcher,
    candidates: Sequence[_Candidate],
    options: Mapping[str, Any],
    wanted: float,
    planned: list[Pool],
) -> _Round:
    outcome = _Round()
    before = len(planned)
    spread = options.get("AllocationStrategy") == "diversified"
    open_candidates = list(candidates)
    while open_candidates and outcome.capacity < wanted:
        candidate = open_candidates[0]
        if not _fits(candidate, outcome.chosen, options):
            open_candidates.pop(0)
            continue
        refused = _claim(launcher, candidate, planned)
        if refused is None and candidate.plan is not None:
            planned.append(candidate.plan.pool)
            outcome.chosen.append(candidate)
            outcome.capacity += candidate.weight
            if spread:
                open_candidates.append(open_candidates.pop(0))
        elif refused is not None:
            if is_exception(refused[1]) and not planned:
                raise refused[0]
            outcome.errors.append((candidate, refused[0]))
            open_candidates.pop(0)
    if outcome.capacity < float(options.get("MinTargetCapacity") or 0):
        del planned[before:]
        outcome.chosen.clear()
    return outcome


def _claim(launcher: Launcher, candidate: _Candidate, planned: list[Pool]) -> tuple[Ec2Error, str] | None:
    if candidate.refusal is not None:
        return candidate.refusal, ""
    assert candidate.plan is not None
    return launcher.claim(candidate.plan, planned)


def _fits(candidate: _Candidate, chosen: Sequence[_Candidate], options: Mapping[str, Any]) -> bool:
    """Whether the candidate keeps to the one type or zone that the fleet has begun with."""
    first = next((c.plan for c in chosen if c.plan is not None), None)
    if first is None or candidate.plan is None:
        return True
    same_type = candidate.plan.pool.instance_type == first.pool.instance_type
    same_zone = candidate.plan.pool.zone == first.pool.zone
    return (same_type or not options.get("SingleInstanceType")) and (
        same_zone or not options.get("SingleAvailabilityZone")
    )


def _launch(
    launcher: Launcher,
    request: Mapping[str, Any],
    region: str,
    rounds: Sequence[_Round],
    tags: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    fleet_id = "fleet-" + new_id("f")[2:]
    token = str(request.get("ClientToken") or "")
    chosen = [candidate for outcome in rounds for candidate in outcome.chosen]
    plans = [candidate.plan for candidate in chosen if candidate.plan is not None]
    instances = launcher.launch(plans, token, fleet_id, {"aws:ec2:fleet-id": fleet_id})
    by_candidate: dict[int, list[Instance]] = {}
    for candidate, instance in zip(chosen, instances, strict=True):
        by_candidate.setdefault(id(candidate), []).append(instance)
    told = {id(candidate): candidate for candidate in chosen}
    answer = {
        "FleetId": fleet_id,
        "Errors": [_error(candidate, error) for outcome in rounds for candidate, error in outcome.errors],
        "Instances": [_instances(told[key], some) for key, some in by_candidate.items()],
    }
    launcher.store.fleets[fleet_id] = Fleet(
        fleet_id, region, dict(request), answer, dict(tags.get("fleet", {})), launcher.clock(), token
    )
    return answer


def _about(candidate: _Candidate) -> dict[str, Any]:
    specification = {
        name: str(candidate.specification[name])
        for name in ("LaunchTemplateId", "LaunchTemplateName", "Version")
        if candidate.specification.get(name)
    }
    override = {
        name: candidate.override[name]
        for name in ("InstanceType", "MaxPrice", "SubnetId", "AvailabilityZone", "WeightedCapacity", "Priority")
        if candidate.override.get(name) is not None
    }
    if candidate.plan is not None:
        override.setdefault("AvailabilityZone", candidate.plan.pool.zone)
    return {
        "LaunchTemplateAndOverrides": {"LaunchTemplateSpecification": specification, "Overrides": override},
        "Lifecycle": candidate.market,
    }


def _error(candidate: _Candidate, error: Ec2Error) -> dict[str, Any]:
    return {**_about(candidate), "ErrorCode": error.code, "ErrorMessage": error.message}


def _instances(candidate: _Candidate, instances: Sequence[Instance]) -> dict[str, Any]:
    pool = instances[0].pool
    answer = {
        **_about(candidate),
        "InstanceIds": [instance.instance_id for instance in instances],
        "InstanceType": pool.instance_type,
        "AvailabilityZone": pool.zone,
        "AvailabilityZoneId": catalogue.zone_id(pool.zone),
    }
    subnet = instances[0].blueprint.subnet_id
    return {**answer, "SubnetId": subnet} if subnet else answer
