"""Hosts as a provider of machines: what `Machines` promises, over one short connection for each call."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from spotrelay.core.clockwork import Timings
from spotrelay.core.codec import from_json
from spotrelay.core.errors import (
    Missing,
    OutcomeUnknown,
    OutOfReach,
    SpotrelayError,
    Unavailable,
    UnknownRun,
    one_of,
)
from spotrelay.core.hosts import Host, machine_id, name_of, prices_of, region_of
from spotrelay.core.notice import InstanceState
from spotrelay.core.orders import pool_of, prepare
from spotrelay.core.placement import FailureScope, Pool, Refusal, Rung
from spotrelay.core.ports import Clock, HostStore, LaunchAnswer, Machine
from spotrelay.core.run import Run
from spotrelay.hosts.connection import CutOff, NoConnection, connected
from spotrelay.hosts.rights import Issuer

SCOPES: dict[str, FailureScope] = {
    "HostUnreachable": FailureScope.REGION,
    "HostKeyMismatch": FailureScope.REGION,
    "HostRefusesKey": FailureScope.REGION,
    "KeyUnusable": FailureScope.REGION,
    "NoPython": FailureScope.REGION,
    "HostUnsupported": FailureScope.REGION,
    "HostUnknown": FailureScope.REGION,
    "HostDraining": FailureScope.POOL,
    "HostBusy": FailureScope.POOL,
    "IdempotentParameterMismatch": FailureScope.CONFIGURATION,
}
FRESH_SHARE = 2 / 3  # of the rights' time: with less left they are renewed
GRACE = timedelta(seconds=10)  # from SIGTERM to SIGKILL


class Runs(Protocol):
    """What is asked about runs: only the control plane's own rows say whose machine it is."""

    def load(self, run_id: str) -> Run:
        """As `RunStore.load`."""
        ...

    def run_of(self, instance_id: str) -> str | None:
        """As `RunStore.run_of`."""
        ...


@dataclass(frozen=True)
class Setting:
    """What every machine of the stack is told."""

    stack: str
    agent_sha256: str
    environment: Mapping[str, str]  # table, bucket, bus, home region
    timings: Timings


@dataclass(frozen=True)
class Sight:
    """One machine as its host shows it."""

    machine: Machine
    rights_end: datetime | None


class SshMachines:
    """A `Machines` over the hosts that are registered.

    Args:
        key_of: the private key behind a host's reference.
        agent: the bytes of the agent's archive, fetched when a host has none yet.
    """

    def __init__(
        self, hosts: HostStore, runs: Runs, issuer: Issuer, key_of: Callable[[str], str], agent: Callable[[], bytes],
        setting: Setting, clock: Clock,
    ) -> None:  # fmt: skip
        self._hosts = hosts
        self._runs = runs
        self._issuer = issuer
        self._key_of = key_of
        self._agent = agent
        self._setting = setting
        self._clock = clock

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request, ready to be stored and sent."""
        return prepare(run_id, generation, launch, rung)

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Start the machine of this request, or find that it was started before."""
        pool = pool_of(request)
        try:
            host = self._host(pool.region)
        except Missing as error:
            return _refused(pool, "HostUnknown", str(error), now)
        if host.draining and first:
            return _refused(pool, "HostDraining", f"host {host.name} is being drained", now)
        run = self._runs.load(str(request["RunId"]))
        try:
            told = asyncio.run(self._start(host, request, run, now))
        except NoConnection as error:
            if not first:
                raise OutOfReach(f"{error}; nothing was sent, try again later") from error
            return _refused(pool, error.code, str(error), now)
        except CutOff as error:
            raise OutcomeUnknown(f"{error}; send the same request again") from error
        if "refused" in told:
            return _refused(pool, str(told["refused"]), str(told["why"]), now)
        return LaunchAnswer(str(told["machine"]), pool)

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made; one that lives before one that ended."""
        shown, silent = self._look([region] if region else None, ended=True)
        mine = [s.machine for s in shown if (s.machine.run_id, s.machine.launch) == (run_id, launch)]
        if not mine and silent:
            raise one_of(silent)
        return min(mine, key=lambda machine: machine.state.is_over, default=None)

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """The machine that this launch made, if a host shows one: gangs are EC2's alone."""
        found = self.find(run_id, launch)
        return (found,) if found else ()

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """The state of each; GONE for one that its host does not know; one that may be out of reach is left out."""
        if not instance_ids:
            return {}
        homes = {i: home for i in instance_ids if (home := (where or {}).get(i)) is not None}
        asked = set(homes.values()) if len(homes) == len(instance_ids) else None
        shown, silent = self._look(asked, ended=True)
        found = {s.machine.instance_id: s.machine.state for s in shown}
        mute = {error.region for error in silent}
        known = {
            i: found.get(i, InstanceState.GONE)
            for i in instance_ids
            if i in found or not (homes[i] in mute if i in homes else mute)
        }
        if silent and not known:
            raise one_of(silent)
        return known

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine that lives on a host; hosts that did not answer are told at the end."""
        shown, silent = self._look(None)
        yield from (sight.machine for sight in shown)
        if silent:
            raise one_of(silent)

    def terminate(self, instance_id: str) -> None:
        """End a machine, wherever it is. Harmless when it is already gone."""
        grace = (GRACE * self._setting.timings.scale).total_seconds()
        run_id = self._runs.run_of(instance_id)
        attempt = self._runs.load(run_id).attempt_on(instance_id) if run_id else None
        at = [attempt.pool.region] if attempt is not None and attempt.pool is not None else None
        _, silent = self._each(at, {"do": "stop", "machine": instance_id, "grace_s": grace})
        if silent:
            raise one_of(silent)

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour, as the hosts were registered."""
        return prices_of(self._hosts.hosts(), pools)

    # beside what every provider does

    def tend(self) -> int:
        """Renew the rights of machines whose attempts go on, before they end; how many.

        Raises:
            Unavailable, Contention: at the very end, naming what could not be done.
        """
        shown, silent = self._look(None)
        bound = self._clock.now() + timedelta(hours=1) * FRESH_SHARE
        renewed = 0
        for sight in (s for s in shown if s.rights_end is None or s.rights_end < bound):
            try:
                renewed += self._renew(sight.machine)
            except SpotrelayError as error:
                silent.append(_Silent(str(error), sight.machine.pool.region))
        if silent:
            raise one_of(silent)
        return renewed

    def check(self, name: str) -> dict[str, Any]:
        """What a host says about itself.

        Raises:
            Missing: it is not registered.
            Unavailable: it is out of reach, or cannot run anything; the text says why.
        """
        answer = self.examine(name)
        if "trouble" in answer:
            raise Unavailable(f"host {name}: {answer['why']}")
        return answer

    def examine(self, name: str) -> dict[str, Any]:
        """What a host says about itself, or `trouble` (a code) and `why` where it cannot run anything.

        Raises:
            Missing: it is not registered.
        """
        host = self._host(region_of(name))

        async def ask() -> dict[str, Any]:
            async with connected(host, self._key_of(host.key_secret)) as line:
                return await line.ask({"do": "check", "folder": self._folder(host)})

        try:
            answer = asyncio.run(ask())
        except NoConnection as error:
            return {"trouble": error.code, "why": str(error)}
        except CutOff as error:
            return {"trouble": "HostDamaged", "why": str(error)}
        return {"trouble": answer["refused"], "why": answer["why"]} if "refused" in answer else answer

    # beneath

    def _host(self, region: str) -> Host:
        found = next((host for host in self._hosts.hosts() if host.region == region), None)
        if found is None:
            raise Missing(f"no host {name_of(region)} is registered: spotrelay hosts list")
        return found

    def _folder(self, host: Host) -> str:
        return f"{host.folder}/{self._setting.stack}/{host.name}"

    async def _start(self, host: Host, request: Mapping[str, Any], run: Run, now: datetime) -> dict[str, Any]:
        machine = machine_id(self._setting.stack, host.region, str(request["Token"]))
        async with connected(host, self._key_of(host.key_secret)) as line:  # before rights are asked for
            order = self._order(host, request, machine, now) | {"rights": self._issuer.issue(run, machine)}
            told = await line.ask(order)
            if told.get("need") == "agent":
                told = await line.ask({**order, "do": "store", "rights": {}}, self._agent())
                told = told if "refused" in told else await line.ask(order)
        return told

    def _order(self, host: Host, request: Mapping[str, Any], machine: str, now: datetime) -> dict[str, Any]:
        setting = self._setting
        run, generation, launch = request["RunId"], request["Generation"], request["Launch"]
        region = setting.environment["SPOTRELAY_HOME_REGION"]
        return {
            "do": "start",
            "folder": self._folder(host),
            "machine": machine,
            "digest": hashlib.sha256(json.dumps(dict(request), sort_keys=True).encode()).hexdigest(),
            "run": run,
            "generation": generation,
            "launch": launch,
            "pool": request["Pools"][0],
            "launched_at": now.isoformat(),
            "slots": host.slots,
            "agent": setting.agent_sha256,
            "grace_s": (GRACE * setting.timings.scale).total_seconds(),
            "environment": {
                **setting.environment,
                "SPOTRELAY_RUN": run,
                "SPOTRELAY_GENERATION": str(generation),
                "SPOTRELAY_LAUNCH": str(launch),
                "SPOTRELAY_INSTANCE": machine,
                "SPOTRELAY_STACK": setting.stack,
                "SPOTRELAY_TIME_SCALE": repr(setting.timings.scale),
                "SPOTRELAY_ON_HOST": host.name,
                "AWS_REGION": region,
                "AWS_DEFAULT_REGION": region,
                "AWS_EC2_METADATA_DISABLED": "true",  # a rented host may stand in a cloud with one of its own
            },
        }

    def _renew(self, machine: Machine) -> bool:
        """Whether the machine got fresh rights: only one that a run of ours still counts on does."""
        run_id = self._runs.run_of(machine.instance_id)
        if run_id is None:
            return False
        try:
            run = self._runs.load(run_id)
        except UnknownRun:
            return False
        attempt = run.attempt_on(machine.instance_id)
        if attempt is None or attempt.over or run.status.final:
            return False
        rights = self._issuer.issue(run, machine.instance_id)
        asked = {"do": "renew", "machine": machine.instance_id, "rights": rights}
        told, silent = self._each([machine.pool.region], asked)
        if silent:
            raise one_of(silent)
        return bool(told and told[0][1].get("renewed"))

    def _look(self, regions: Iterable[str] | None, ended: bool = False) -> tuple[list[Sight], list[_Silent]]:
        """What these hosts show, or all of them, and those that did not answer."""
        told, silent = self._each(regions, {"do": "show"})
        sights = [
            s
            for host, answer in told
            for shown in answer.get("machines", [])
            for s in _sight(self._setting.stack, host, shown)
        ]
        return [s for s in sights if ended or not s.machine.state.is_over], silent

    def _each(
        self, regions: Iterable[str] | None, question: Mapping[str, Any]
    ) -> tuple[list[tuple[Host, dict[str, Any]]], list[_Silent]]:
        """Ask hosts the same, all at the same time. One that is no longer registered has no machines."""
        wanted = None if regions is None else set(regions)
        hosts = [host for host in self._hosts.hosts() if wanted is None or host.region in wanted]

        async def one(host: Host) -> dict[str, Any] | _Silent:
            try:
                async with connected(host, self._key_of(host.key_secret)) as line:
                    return await line.ask({**question, "folder": self._folder(host)})
            except (NoConnection, CutOff) as error:
                return _Mute(f"{host.region}: {error}", host.region)
            except SpotrelayError as error:
                return _Silent(f"{host.region}: {error}", host.region)

        async def all_of_them() -> list[dict[str, Any] | _Silent]:
            return list(await asyncio.gather(*(one(host) for host in hosts)))

        answers = asyncio.run(all_of_them()) if hosts else []
        pairs = list(zip(hosts, answers, strict=True))
        return [(h, a) for h, a in pairs if not isinstance(a, _Silent)], [a for a in answers if isinstance(a, _Silent)]


class _Silent(Unavailable):
    """One host was not heard."""

    def __init__(self, text: str, region: str) -> None:
        super().__init__(text)
        self.region = region


class _Mute(_Silent, OutOfReach):
    """It was tried, and did not answer."""


def _sight(stack: str, host: Host, shown: Mapping[str, Any]) -> list[Sight]:
    """The machine, unless the host speaks of one that no launch of ours can have made there."""
    token = f"{shown['run']}.{shown['generation']}.{shown['launch']}"
    if machine_id(stack, host.region, token) != shown["machine"]:
        return []
    state = InstanceState.RUNNING if shown["alive"] else InstanceState.TERMINATED
    pool = from_json(Pool, shown["pool"], "the pool of a host's machine")
    at = datetime.fromisoformat(str(shown["launched_at"])).astimezone(UTC)
    machine = Machine(
        str(shown["machine"]), state, str(shown["run"]), int(shown["generation"]), int(shown["launch"]), pool, at
    )
    return [Sight(machine, datetime.fromisoformat(shown["rights_end"]) if shown["rights_end"] else None)]


def _refused(pool: Pool, code: str, why: str, now: datetime) -> LaunchAnswer:
    scope = SCOPES.get(code, FailureScope.UNKNOWN)
    return LaunchAnswer(None, None, (Refusal(pool, scope, code, why, now),))
