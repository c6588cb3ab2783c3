"""Every provider of machines as one: each call goes to the one that a region or an id belongs to."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from datetime import datetime
from typing import Any

from spotrelay.core.errors import SpotrelayError, one_of
from spotrelay.core.hosts import is_host, is_on_host
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import Pool, Rung
from spotrelay.core.ports import LaunchAnswer, Machine, Machines


class Providers:
    """A `Machines` over EC2 and over hosts of one's own. One that does not answer hides only its own machines."""

    def __init__(self, ec2: Machines, hosts: Machines) -> None:
        self._ec2 = ec2
        self._hosts = hosts

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request of the provider that the rung's region belongs to."""
        return self._of(rung.pools[0].region).prepare(run_id, generation, launch, rung)

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Send a prepared request to the provider that prepared it."""
        return self._of(str(request["Region"])).launch(request, now, first=first)

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made; with a region only its provider is asked."""
        if region:
            return self._of(region).find(run_id, launch, region)
        return self._ec2.find(run_id, launch) or self._hosts.find(run_id, launch)

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """Every machine that this launch made: gangs are EC2's alone."""
        return self._ec2.find_all(run_id, launch)

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """The state of each, as far as its provider answers."""
        known: dict[str, InstanceState] = {}
        silent: list[SpotrelayError] = []
        for provider, ours in ((self._ec2, False), (self._hosts, True)):
            wanted = tuple(i for i in instance_ids if is_on_host(i) is ours)
            try:
                known |= provider.states(wanted, where) if wanted else {}
            except SpotrelayError as error:
                silent.append(error)
        if silent and not known:
            raise one_of(silent)
        return known

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine of the stack, those of hosts in each sweep; what did not answer is told at the end."""
        silent: list[SpotrelayError] = []
        for provider in (self._ec2, self._hosts):
            try:
                yield from provider.managed(whole)
            except SpotrelayError as error:
                silent.append(error)
        if silent:
            raise one_of(silent)

    def terminate(self, instance_id: str) -> None:
        """End a machine."""
        (self._hosts if is_on_host(instance_id) else self._ec2).terminate(instance_id)

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour of the pools whose price is known."""
        known: dict[Pool, float] = {}
        silent: list[SpotrelayError] = []
        for provider, ours in ((self._ec2, False), (self._hosts, True)):
            wanted = tuple(pool for pool in pools if is_host(pool.region) is ours)
            try:
                known |= provider.prices(wanted) if wanted else {}
            except SpotrelayError as error:
                silent.append(error)
        if silent and not known:
            raise one_of(silent)
        return known

    def _of(self, region: str) -> Machines:
        return self._hosts if is_host(region) else self._ec2
