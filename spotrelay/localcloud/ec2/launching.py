"""RunInstances and CreateFleet."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spotrelay.localcloud.ec2 import catalogue, permissions, template
from spotrelay.localcloud.ec2.capacity import EXCEPTION, Capacity
from spotrelay.localcloud.ec2.errors import Ec2Error, invalid_value
from spotrelay.localcloud.ec2.lifecycle import Lifecycle
from spotrelay.localcloud.ec2.records import SPOT, Blueprint, Instance, Pool, SpotRequest, new_id
from spotrelay.localcloud.ec2.reserved import Reservations
from spotrelay.localcloud.ec2.store import Store
from spotrelay.localcloud.ec2.world import World

_MOST = 1000
_RUNNING = ("pending", "running")
_REQUEST_ONLY = {"MinCount", "MaxCount", "DryRun", "ClientToken", "LaunchTemplate"}


class Launcher:
    """Makes instances out of blueprints; the store's lock is held from the token to the last instance."""

    def __init__(
        self,
        world: World,
        store: Store,
        lifecycle: Lifecycle,
        capacity: Capacity,
        home: Path,
        clock: Callable[[], float],
        account: str,
    ) -> None:
        self.world = world
        self.store = store
        self.capacity = capacity
        self.clock = clock
        self.account = account
        self.reservations = Reservations()
        self._lifecycle = lifecycle
        self._home = home

    def run_instances(self, request: dict[str, Any], caller: str, region: str) -> list[Instance]:
        """Launch at least MinCount and at most MaxCount instances of one pool, or none.

        Raises:
            Ec2Error: nothing was launched.
        """
        least, most = int(request["MinCount"]), int(request["MaxCount"])
        if not 1 <= least <= most <= _MOST:
            raise invalid_value(f"{least}..{most}", "MinCount and MaxCount")
        own = {name: value for name, value in request.items() if name not in _REQUEST_ONLY}
        plan = template.merge(self.world, region, own, request.get("LaunchTemplate"))
        named = own.get("SubnetId") or (own.get("Placement") or {}).get("AvailabilityZone")
        permissions.require(self.world, caller, region, permissions.to_launch(self.account, plan, "RunInstances"))
        dry_run(request)
        zone = plan.pool.zone if named else ""  # idempotency is zonal only where the request names the place
        with self.store.lock:
            known = self.store.answered("RunInstances", region, zone, request)
            if known is not None:
                return [self.store.instances[instance_id] for instance_id in known]
            taken = self._claim(plan, most)
            if len(taken) < least:
                raise taken.refusal or Ec2Error("InternalError", "An internal error has occurred")
            token = str(request.get("ClientToken") or "")
            made = self.launch([plan] * len(taken), token)
            self.store.remember("RunInstances", region, zone, request, [i.instance_id for i in made])
            return made

    def _claim(self, plan: Blueprint, most: int) -> _Claims:
        claims = _Claims()
        while len(claims) < most and claims.refusal is None:
            refused = self.claim(plan, claims)
            if refused is None:
                claims.append(plan.pool)
            else:
                claims.refusal = refused[0]
        return claims

    def claim(self, plan: Blueprint, planned: list[Pool]) -> tuple[Ec2Error, str] | None:
        """Ask for the capacity of one more instance; the refusal and its form."""
        if plan.reservation:
            running = [i.blueprint.reservation for i in self.store.instances.values() if i.state in _RUNNING]
            refusal = self.reservations.claim(plan, [*running, *[plan.reservation] * len(planned)])
            return None if refusal is None else (refusal, EXCEPTION)
        price = catalogue.spot_price(plan.pool.instance_type, plan.pool.zone, self.clock())
        if plan.pool.market == SPOT and plan.max_price is not None and plan.max_price < price:
            text = f"Your Spot request price of {plan.max_price} is lower than the minimum required Spot request "
            return Ec2Error("SpotMaxPriceTooLow", f"{text}fulfillment price of {price}."), ""
        return self.capacity.claim(plan.pool, [*self.store.running_pools(), *planned])

    def launch(
        self, plans: list[Blueprint], client_token: str, fleet_id: str = "", more_tags: Mapping[str, str] | None = None
    ) -> list[Instance]:
        """Take in one instance for each plan, in one reservation; the store's lock is held by the caller."""
        reservation = new_id("r")
        return [
            self._launch_one(plan, reservation, client_token, fleet_id, index, dict(more_tags or {}))
            for index, plan in enumerate(plans)
        ]

    def _launch_one(
        self, plan: Blueprint, reservation: str, token: str, fleet_id: str, index: int, more_tags: dict[str, str]
    ) -> Instance:
        instance_id = new_id("i")
        now = self.clock()
        tags = dict(plan.tags.get("instance", {})) | more_tags
        if plan.template_id:
            tags["aws:ec2launchtemplate:id"] = plan.template_id
            tags["aws:ec2launchtemplate:version"] = plan.template_version
        instance = Instance(
            instance_id=instance_id,
            blueprint=plan,
            reservation_id=reservation,
            client_token=token,
            fleet_id=fleet_id,
            owner=self.account,
            launched_at=now,
            home=self._home / instance_id,
            private_ip=_reachable_address(),
            tags=tags,
            launch_index=index,
        )
        if plan.pool.market == SPOT:
            request = SpotRequest(
                "sir-" + secrets.token_hex(4), instance_id, now, dict(plan.tags.get("spot-instances-request", {}))
            )
            self.store.spot_requests[request.request_id] = request
            instance.spot_request_id = request.request_id
        self._lifecycle.admit(instance)
        return instance


def _reachable_address() -> str:
    """Of the host's loopback network, which is a /8: so that machines really reach each other, each at its own."""
    return "127." + ".".join(str(1 + byte % 254) for byte in secrets.token_bytes(3))


class _Claims(list[Pool]):
    """Pools in which capacity was given, and why no more was."""

    refusal: Ec2Error | None = None


def dry_run(request: Mapping[str, Any]) -> None:
    """End a request that only asks whether it would be allowed.

    Raises:
        Ec2Error: DryRunOperation.
    """
    if request.get("DryRun"):
        raise Ec2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def is_exception(form: str) -> bool:
    """Whether a refusal fails a fleet request as a whole."""
    return form == EXCEPTION
