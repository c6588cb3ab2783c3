"""EC2: instant fleets of one machine or of a gang, found and ended by tag."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from spotrelay.aws import fleet
from spotrelay.aws.clients import Clients
from spotrelay.aws.clock import SystemClock
from spotrelay.aws.error_codes import SERVER, STALE_CREDENTIALS, scope_of
from spotrelay.aws.failures import FAILURES, LOOK_AT_CREDENTIALS, NO_CREDENTIALS, Kind, code_of, failed_read, kind_of
from spotrelay.aws.places import Places
from spotrelay.core.errors import Contention, OutcomeUnknown, SpotrelayError, Unavailable, one_of
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Market, Pool, Rung
from spotrelay.core.ports import CROWD, Clock, LaunchAnswer, Machine

NOT_FOUND = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})
STARTED = ("pending", "running")
PAGE = 1000  # machines in one answer of DescribeInstances
FILTER_VALUES = 200  # that one filter of DescribeInstances takes
SIGHTINGS = 10_000  # machines whose region is remembered


class Ec2Machines:
    """A `Machines` over every region that the stack reaches.

    Args:
        stack: value of the tag `spotrelay:managed`; machines of other stacks are never touched.
    """

    def __init__(self, clients: Clients, places: Places, stack: str, clock: Clock | None = None) -> None:
        self._clients = clients
        self._places = places
        self._stack = stack
        self._clock = clock or SystemClock()
        self._seen = _Sightings(SIGHTINGS)

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request, ClientToken and tags included, ready to be stored and sent."""
        return fleet.prepare(self._places, self._stack, run_id, generation, launch, rung)

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Send a prepared request, exactly once; a region out of reach refuses what nobody sent before."""
        region = str(request["Region"])
        doing = f"launching {fleet.token_of(request)} in {region}"
        try:
            found = self._sent(request, region, now)
        except FAILURES as error:
            if first and _was_not_sent(error):
                why = f"{region} could not be reached, nothing was sent: {error}"
                return fleet.refused_whole(request, FailureScope.REGION, code_of(error), why, now)
            return self._refused(error, request, now, doing)
        for instance_id in found.instance_ids:
            self._seen.note(instance_id, region)
        return found

    def _sent(self, request: Mapping[str, Any], region: str, now: datetime) -> LaunchAnswer:
        launcher = self._clients.launcher(region)
        if fleet.RESERVED in request:
            return fleet.read_reservation(launcher.run_instances(**request[fleet.RESERVED]), request)
        return fleet.read_answer(launcher.create_fleet(**request["CreateFleet"]), request, now)

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made, by its tags; one that still runs before one that ended."""
        found: list[Machine] = []
        try:
            found.extend(self._made_by(run_id, launch, region))
        except SpotrelayError:
            if all(machine.state.is_over for machine in found):
                raise
        return min(found, key=lambda machine: machine.state.is_over, default=None)

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """Every machine that this launch made, by its tags; those that still run first."""
        return tuple(sorted(self._made_by(run_id, launch), key=lambda m: (m.state.is_over, m.instance_id)))

    def _made_by(self, run_id: str, launch: int, region: str = "") -> Iterator[Machine]:
        wanted = {
            "tag:spotrelay:managed": [self._stack],
            "tag:spotrelay:run": [run_id],
            "tag:spotrelay:launch": [str(launch)],
        }
        doing = f"looking for the machines of run {run_id}, launch {launch}"
        return self._described_in(region, wanted, doing) if region else self._described(wanted, doing)

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """EC2's state of each; GONE for one that no region knows; one that may be out of reach is left out."""
        found: dict[str, InstanceState] = {}
        unknown: set[str] = set()
        silent: list[SpotrelayError] = []
        for region, wanted in self._by_region(instance_ids, where or {}).items():
            try:
                for machine in self._look_at(wanted, region):
                    found[machine.instance_id] = machine.state
            except SpotrelayError as error:
                silent.append(error)
                unknown.update(wanted)
        known = {i: found.get(i, InstanceState.GONE) for i in instance_ids if i in found or i not in unknown}
        if silent and not known:
            raise one_of(silent)
        return known

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine with our tag that is pending or running; what did not answer is told at the end."""
        wanted = {"tag:spotrelay:managed": [self._stack], "instance-state-name": list(STARTED)}
        crowded = [] if whole is None else [region for region in self._regions() if region not in whole]
        return self._described(wanted, "looking for machines with our tag", crowded)

    def terminate(self, instance_id: str) -> None:
        """End a machine. Harmless when it is already gone."""
        refused: Exception | None = None
        for region in self._regions(self._seen.region_of(instance_id)):
            try:
                self._clients.client("ec2", region).terminate_instances(InstanceIds=[instance_id])
                return
            except FAILURES as error:
                if code_of(error) not in NOT_FOUND:
                    refused = refused or error
        if refused is not None:
            raise failed_read(refused, f"terminating {instance_id}") from refused

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour of the Spot pools; EC2 tells no on-demand prices."""
        spot = [pool for pool in pools if pool.market == Market.SPOT.value]
        prices: dict[Pool, float] = {}
        regions = sorted({pool.region for pool in spot})
        silent: list[SpotrelayError] = []
        for region in regions:
            types = sorted({pool.instance_type for pool in spot if pool.region == region})
            try:
                prices |= self._spot_prices(region, types)
            except SpotrelayError as error:
                silent.append(error)
        if silent and len(silent) == len(regions):
            raise one_of(silent)
        return {pool: prices[pool] for pool in spot if pool in prices}

    def _refused(self, error: Exception, request: Mapping[str, Any], now: datetime, doing: str) -> LaunchAnswer:
        """A definite no as an answer; anything else is raised.

        Raises:
            OutcomeUnknown, Contention, Unavailable: as `Machines.launch` says.
        """
        unclear = _unclear(error, doing)
        if unclear is not None:
            raise unclear from error
        code = code_of(error)
        scope = FailureScope.CONFIGURATION if kind_of(error) is Kind.UNSENT else scope_of(code)
        return fleet.refused_whole(request, scope, code, str(error), now)

    def _regions(self, first: str | None = None) -> list[str]:
        return sorted(self._places.regions, key=lambda region: region != first)

    def _by_region(self, instance_ids: tuple[str, ...], where: Mapping[str, str]) -> dict[str, list[str]]:
        """Whom to ask about which machine: one region where it is known, each of them where not."""
        asked: dict[str, list[str]] = {}
        for instance_id in instance_ids:
            home = where.get(instance_id) or self._seen.region_of(instance_id)
            for region in [home] if home in self._places.regions else self._regions():
                asked.setdefault(str(region), []).append(instance_id)
        return asked

    def _look_at(self, instance_ids: list[str], region: str) -> Iterator[Machine]:
        for start in range(0, len(instance_ids), FILTER_VALUES):
            some = instance_ids[start : start + FILTER_VALUES]
            # a filter, unlike InstanceIds, leaves out what it does not know instead of failing
            yield from self._described_in(region, {"instance-id": some}, f"looking at {', '.join(some[:3])}")

    def _described(
        self, wanted: Mapping[str, list[str]], doing: str, crowded: Container[str] = ()
    ) -> Iterator[Machine]:
        """Machines of every region that answers; then the error of those that do not.

        Args:
            crowded: regions that are asked once, and left out if they hold more than `CROWD` machines.
        """
        silent: list[SpotrelayError] = []
        for region in self._regions():
            try:
                if region in crowded:
                    yield from self._few_in(region, wanted, doing)
                else:
                    yield from self._described_in(region, wanted, doing)
            except SpotrelayError as error:
                silent.append(error)
        if silent:
            raise one_of(silent)

    def _described_in(self, region: str, wanted: Mapping[str, list[str]], doing: str) -> Iterator[Machine]:
        more: dict[str, Any] = {}
        while True:
            page = self._page(region, wanted, doing, MaxResults=PAGE, **more)
            yield from self._read(page, region)
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _few_in(self, region: str, wanted: Mapping[str, list[str]], doing: str) -> Iterator[Machine]:
        page = self._page(region, wanted, doing, MaxResults=CROWD)
        return iter(()) if page.get("NextToken") else self._read(page, region)

    def _page(self, region: str, wanted: Mapping[str, list[str]], doing: str, **bounds: Any) -> Any:
        filters = [{"Name": name, "Values": values} for name, values in wanted.items()]
        try:
            return self._clients.client("ec2", region).describe_instances(Filters=filters, **bounds)
        except FAILURES as error:
            raise failed_read(error, f"{doing} in {region}") from error

    def _read(self, page: Mapping[str, Any], region: str) -> Iterator[Machine]:
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                self._seen.note(instance["InstanceId"], region)
                yield fleet.read_machine(instance, region)

    def _spot_prices(self, region: str, types: list[str]) -> dict[Pool, float]:
        try:
            pages = (
                self._clients.client("ec2", region)
                .get_paginator("describe_spot_price_history")
                .paginate(InstanceTypes=types, ProductDescriptions=["Linux/UNIX"], StartTime=self._clock.now())
            )
            rows = [row for page in pages for row in page["SpotPriceHistory"]]
        except FAILURES as error:
            raise failed_read(error, f"asking for Spot prices in {region}") from error
        rows.sort(key=lambda row: row["Timestamp"])  # the newest of a pool comes last and stays
        return {Pool(region, row["AvailabilityZone"], row["InstanceType"]): float(row["SpotPrice"]) for row in rows}


class _Sightings:
    """In which region a machine was seen, which never changes; the oldest are forgotten. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._regions: dict[str, str] = {}  # oldest first

    def note(self, instance_id: str, region: str) -> None:
        with self._lock:
            self._regions.pop(instance_id, None)
            self._regions[instance_id] = region
            if len(self._regions) > self._most:
                del self._regions[next(iter(self._regions))]

    def region_of(self, instance_id: str) -> str | None:
        with self._lock:
            return self._regions.get(instance_id)


def _was_not_sent(error: Exception) -> bool:
    """Whether this failure proves that the request never left: no connection, or nothing to sign it with."""
    return kind_of(error) is Kind.UNREACHED or isinstance(error, NO_CREDENTIALS)


def _unclear(error: Exception, doing: str) -> SpotrelayError | None:
    """The error to raise for a launch that has no definite answer; None for a definite no.

    Nothing is retried beneath a launch, so a missing connection means that nothing was sent.
    """
    code, kind = code_of(error), kind_of(error)
    if kind is Kind.THROTTLE:
        return Contention(f"{doing}: EC2 answers {code}; send the same request later")
    if kind is Kind.UNREACHED:
        return Unavailable(f"{doing}: EC2 was not reached ({code}), nothing was sent; try again later")
    if code in STALE_CREDENTIALS or (kind is Kind.ACCESS and not isinstance(error, ClientError)):
        return Unavailable(f"{doing}: not let in ({code}), nothing was launched; {LOOK_AT_CREDENTIALS}")
    if code in SERVER or (kind is Kind.CUT and scope_of(code) is FailureScope.UNKNOWN):
        return OutcomeUnknown(f"{doing}: no clear answer ({code}); send the same request again")
    return None
