"""The emulated EC2: requests of the Query protocol in, XML out; and the controls that a demo or a test has over it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spotrelay.localcloud.ec2 import describing, fleets, offers, permissions, template, wire
from spotrelay.localcloud.ec2.capacity import Capacity, RequestRate
from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.launching import Launcher, dry_run
from spotrelay.localcloud.ec2.lifecycle import Lifecycle, NotPossible, described
from spotrelay.localcloud.ec2.permissions import Need
from spotrelay.localcloud.ec2.process_table import Census
from spotrelay.localcloud.ec2.records import STATE_CODES, Instance
from spotrelay.localcloud.ec2.reserved import Reserved
from spotrelay.localcloud.ec2.store import Store
from spotrelay.localcloud.ec2.world import World

__all__ = ["Ec2", "World"]

ACCOUNT = "000000000000"

Request = dict[str, Any]
Answer = Mapping[str, Any]
_log = logging.getLogger(__name__)


class Ec2:
    """EC2 for every region of one account; thread-safe.

    Args:
        world: the cloud around it.
        home: a folder; instances live in `instances/` below it, what happened to them is in `instances.jsonl`.
        time_scale: how much of each real waiting time is waited: two minutes of notice become 120 times this.
        clock: seconds since 1970.
    """

    ACTIONS = frozenset(
        {
            "CreateFleet",
            "CreateTags",
            "DescribeFleetInstances",
            "DescribeFleets",
            "DescribeInstanceStatus",
            "DescribeInstanceTypeOfferings",
            "DescribeInstanceTypes",
            "DescribeInstances",
            "DescribeSpotInstanceRequests",
            "DescribeSpotPriceHistory",
            "DescribeTags",
            "GetSpotPlacementScores",
            "RunInstances",
            "TerminateInstances",
        }
    )

    def __init__(
        self,
        world: World,
        home: Path,
        time_scale: float = 1.0,
        clock: Callable[[], float] = time.time,
        account: str = ACCOUNT,
    ) -> None:
        self._world = world
        self._clock = clock
        self._account = account
        self._store = Store()
        self._capacity = Capacity()
        self._rate = RequestRate()
        self._lifecycle = Lifecycle(world, self._store, home, time_scale, clock, account)
        self._launcher = Launcher(
            world, self._store, self._lifecycle, self._capacity, home / "instances", clock, account
        )
        self._looking: dict[str, Callable[[Request, str], Answer]] = {
            "DescribeFleetInstances": self._describe_fleet_instances,
            "DescribeFleets": lambda request, region: describing.fleets(self._store, region, request),
            "DescribeInstanceStatus": lambda r, region: describing.statuses(self._visible(region), r),
            "DescribeInstanceTypeOfferings": lambda request, region: offers.offerings(region, request),
            "DescribeInstanceTypes": lambda request, region: offers.instance_types(request),
            "DescribeInstances": lambda r, region: describing.instances(self._visible(region), r),
            "DescribeSpotInstanceRequests": lambda r, region: describing.spot_requests(self._store, region, r),
            "DescribeSpotPriceHistory": lambda r, region: offers.price_history(region, r, self._clock()),
            "DescribeTags": lambda r, region: describing.tags(self._store, self._visible(region), region, r),
            "GetSpotPlacementScores": lambda r, region: offers.placement_scores(self._capacity, region, r),
        }
        self._doing: dict[str, Callable[[Request, str, str], Answer]] = {
            "CreateFleet": lambda request, caller, region: fleets.create_fleet(self._launcher, request, caller, region),
            "CreateTags": self._create_tags,
            "RunInstances": self._run_instances,
            "TerminateInstances": self._terminate_instances,
        }

    def handle(self, action: str, params: dict[str, str], caller: str, region: str) -> tuple[int, bytes]:
        """Answer one request: HTTP status and XML.

        Args:
            action: one of ACTIONS.
            params: the request's parameters, flattened as the Query protocol has them.
            caller: ARN of who signed it.
            region: the region that it was signed for.
        """
        try:
            self._rate.spend(region, action)
            if action not in self.ACTIONS:
                raise Ec2Error("InvalidAction", f"The action {action} is not valid for this web service.")
            return 200, wire.answer(action, self._answer(action, wire.parse(action, params), caller, region))
        except Ec2Error as refusal:
            return refusal.status, wire.error_answer(refusal)
        except Exception:  # noqa: BLE001  # told in the log and to the client
            _log.exception("%s failed in the emulated EC2", action)
            failure = Ec2Error("InternalError", "An internal error has occurred")
            return failure.status, wire.error_answer(failure)

    def _answer(self, action: str, request: Request, caller: str, region: str) -> Answer:
        if action in self._doing:
            return self._doing[action](request, caller, region)
        permissions.require(self._world, caller, region, [Need(f"ec2:{action}", "*", {})])
        dry_run(request)
        with self._store.lock:
            return self._looking[action](request, region)

    def _visible(self, region: str) -> list[Instance]:
        return self._store.visible(region, self._clock())

    def _run_instances(self, request: Request, caller: str, region: str) -> Answer:
        made = self._launcher.run_instances(request, caller, region)
        with self._store.lock:
            return describing.reservation(made)

    def _terminate_instances(self, request: Request, caller: str, region: str) -> Answer:
        with self._store.lock:
            found = describing.known_instances(self._visible(region), request["InstanceIds"])
            needs = [Need("ec2:TerminateInstances", i.arn(), permissions.tags_held(i)) for i in found]
        permissions.require(self._world, caller, region, needs)
        dry_run(request)
        changes = []
        for instance in found:
            before, after = self._lifecycle.terminate(instance)
            changes.append(
                {
                    "InstanceId": instance.instance_id,
                    "PreviousState": {"Code": STATE_CODES[before], "Name": before},
                    "CurrentState": {"Code": STATE_CODES[after], "Name": after},
                }
            )
        return {"TerminatingInstances": changes}

    def _create_tags(self, request: Request, caller: str, region: str) -> Answer:
        given = {str(tag["Key"]): str(tag.get("Value", "")) for tag in request["Tags"]}
        template.check_tag_keys(given)
        with self._store.lock:
            found = [self._taggable(name, region) for name in request["Resources"]]
            needs = [Need("ec2:CreateTags", arn, {**permissions.tags_asked(given), **held}) for arn, held, _ in found]
        permissions.require(self._world, caller, region, needs)
        dry_run(request)
        with self._store.lock:
            for _, _, tags in found:
                tags.update(given)
        return {}

    def _taggable(self, name: str, region: str) -> tuple[str, Mapping[str, Any], dict[str, str]]:
        """ARN, context of what it holds, and the tags to change, of a resource that lives here."""
        arn = f"arn:aws:ec2:{region}:{self._account}:"
        if name in self._store.fleets:
            return f"{arn}fleet/{name}", {}, self._store.fleets[name].tags
        if name in self._store.spot_requests:
            return f"{arn}spot-instances-request/{name}", {}, self._store.spot_requests[name].tags
        if not name.startswith("i-"):
            raise Ec2Error("InvalidID", f"The ID '{name}' is not valid")
        instance = describing.known_instances(self._visible(region), [name])[0]
        return instance.arn(), permissions.tags_held(instance), instance.tags

    def _describe_fleet_instances(self, request: Request, region: str) -> Answer:
        if request["FleetId"] not in self._store.fleets:
            raise Ec2Error("InvalidFleetId.NotFound", f"The fleet ID '{request['FleetId']}' does not exist")
        raise Ec2Error("UnsupportedOperation", "DescribeFleetInstances does not support fleets of type instant")

    # What follows is for demos and tests: things that AWS does, or that happen to it.

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was ever launched, with the processes of it that the process table shows now."""
        census = Census()
        with self._store.lock:
            known = list(self._store.instances.values())
        return [described(i, [p.pid for p in i.machine.processes(census)] if i.machine else []) for i in known]

    def interrupt(
        self,
        instance_id: str,
        notice_s: float | None = None,
        duplicate: int = 1,
        shuffle: bool = False,
        rebalance_first: bool = False,
    ) -> dict[str, Any]:
        """Take a Spot instance back, with a notice. See `Lifecycle.interrupt`."""
        instance = self._known(instance_id)
        return {"deadline": self._lifecycle.interrupt(instance, notice_s, duplicate, shuffle, rebalance_first)}

    def kill(self, instance_id: str) -> None:
        """Let an instance's hardware fail: every process dies at once, without notice. A zombie dies for good."""
        self._lifecycle.lose(self._known(instance_id))

    def recommend_rebalance(self, instance_id: str) -> None:
        """Say that an instance is at elevated risk."""
        self._lifecycle.recommend_rebalance(self._known(instance_id))

    def refuse(
        self, match: Mapping[str, Any], code: str, form: str = "fleet", times: int | None = None, after: int = 0
    ) -> None:
        """Let capacity pools refuse launches. See `Capacity.refuse`."""
        self._capacity.refuse(match, code, form, times, after)

    def allow(self, match: Mapping[str, Any] | None = None) -> None:
        """Take refusals back. See `Capacity.allow`."""
        self._capacity.allow(match or {})

    def set_quota(self, market: str, family: str, vcpus: int | None, region: str = "*") -> None:
        """Limit the vCPUs of a market and family. See `Capacity.set_quota`."""
        self._capacity.set_quota(market, family, vcpus, region)

    def reserve(self, reservation_id: str, instance_type: str, zone: str, count: int = 1, block: bool = False) -> None:
        """Let there be a capacity reservation, or a capacity block."""
        self._launcher.reservations.put(Reserved(reservation_id, instance_type, zone, count, block))

    def limit_requests(self, per_second: float | None, burst: float | None = None) -> None:
        """Limit the rate of each action in each region; None lifts the limit."""
        self._rate.limit(per_second, burst)

    def set_lag(self, seconds: float) -> None:
        """Let new instances stay unknown to other calls for a while: EC2 is consistent only eventually."""
        self._store.lag_s = seconds

    def zombify(self, instance_id: str) -> None:
        """Let EC2 say terminated while the processes are only stopped."""
        self._lifecycle.zombify(self._known(instance_id))

    def wake(self, instance_id: str) -> None:
        """Let a stopped instance, or a zombie, go on."""
        self._lifecycle.continue_group(self._known(instance_id))

    def stop_group(self, instance_id: str) -> None:
        """SIGSTOP every process of an instance."""
        self._lifecycle.stop_group(self._known(instance_id))

    def continue_group(self, instance_id: str) -> None:
        """SIGCONT every process of an instance."""
        self._lifecycle.continue_group(self._known(instance_id))

    def break_metadata(self, instance_id: str, status: int | None = 503) -> None:
        """Let an instance's metadata service answer everything with this HTTP status; None mends it."""
        self._lifecycle.break_metadata(self._known(instance_id), status)

    def console(self, instance_id: str) -> str:
        """What an instance has written to its console."""
        path = self._known(instance_id).home / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kill every process of every instance, and end."""
        self._lifecycle.close()

    def _known(self, instance_id: str) -> Instance:
        instance = self._store.instances.get(instance_id)
        if instance is None:
            raise NotPossible(f"there is no instance {instance_id}")
        return instance
