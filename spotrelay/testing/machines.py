"""EC2 in memory: tokens, capacity by script, states, and a limit on the request rate."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import Contention, InvalidInput, Unavailable
from spotrelay.core.hosts import is_host
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool, Refusal, Rung
from spotrelay.core.ports import CROWD, LaunchAnswer, Machine


@dataclass
class Capacity:
    """One line of the capacity script: pools that match are refused."""

    code: str
    scope: FailureScope
    match: Mapping[str, str]  # fields of Pool that must be equal; empty matches every pool
    times: int | None  # refusals left; None: until allowed again

    def refuses(self, pool: Pool) -> bool:
        """Whether this line speaks about the pool and is not used up."""
        return self.times != 0 and all(getattr(pool, name) == value for name, value in self.match.items())


@dataclass
class RequestRate:
    """EC2's token bucket for launches, on a clock that the caller passes in."""

    burst: int
    per_second: float
    _tokens: float = field(default=-1.0, repr=False)
    _at: datetime | None = field(default=None, repr=False)

    def allows(self, now: datetime) -> bool:
        """Take one token, if there is one."""
        if self._at is None:
            self._tokens, self._at = float(self.burst), now
        gained = max(timedelta(0), now - self._at).total_seconds() * self.per_second
        self._tokens, self._at = min(float(self.burst), self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class MemoryMachines:
    """A `Machines`. What EC2 and its capacity do by themselves stands at the end of the class."""

    def __init__(self, rate: RequestRate | None = None, price: float = 1.0) -> None:
        self._lock = threading.RLock()
        self._rate = rate
        self._price = price
        self._script: list[Capacity] = []
        self._tokens: dict[str, tuple[dict[str, Any], LaunchAnswer]] = {}
        self._machines: dict[str, Machine] = {}
        self._by_launch: defaultdict[tuple[str, int], list[str]] = defaultdict(list)  # run and launch to ids
        self._hidden: set[str] = set()
        self._cut: set[str] = set()  # regions out of reach
        self._room: dict[Pool, int] = {}  # machines that a pool has at most
        self._short = 0  # machines that the next launch does not give
        self.requests: list[dict[str, Any]] = []  # every launch request received, refused ones too
        self.throttled = 0  # launch requests that the rate refused
        self.terminations: list[str] = []  # ids asked to end, in order

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request, ready to be stored and sent."""
        request = {
            "ClientToken": f"{run_id}.{generation}.{launch}",
            "Region": rung.pools[0].region,
            "RunId": run_id,
            "Generation": generation,
            "Launch": launch,
            "Pools": [to_json(pool) for pool in rung.pools],
        }
        gang = {"Nodes": rung.nodes, "PlacementGroup": rung.placement_group}
        return request if rung.nodes == 1 else request | gang

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Send a prepared request."""
        wanted = dict(request)
        pools = tuple(from_json(Pool, pool) for pool in wanted["Pools"])
        with self._lock:
            if pools[0].region in self._cut:
                return _not_sent(pools, now, first)
            if self._rate is not None and not self._rate.allows(now):
                self.throttled += 1
                raise Contention("EC2 answers RequestLimitExceeded: send the same request later")
            self.requests.append(wanted)
            known = self._tokens.get(wanted["ClientToken"])
            if known is not None:
                return known[1] if known[0] == wanted else _mismatch(pools, now)
            answer = self._fill(wanted, pools, now)
            if answer.instance_id is not None:
                self._tokens[wanted["ClientToken"]] = (wanted, answer)
            return answer

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made, if EC2 shows one."""
        with self._lock:
            shown = (m for m in self._made_by(run_id, launch) if not region or m.pool.region == region)
            mine = next(shown, None)
            if mine is None:
                self._need(self._cut & {region} if region else self._cut)
            return mine

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """Every machine that this launch made; those that still run first."""
        with self._lock:
            mine = self._made_by(run_id, launch)
            self._need(self._cut)
        return tuple(sorted(mine, key=lambda m: (m.state.is_over, m.instance_id)))

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """EC2's state of each; GONE for one it does not know; one that may be out of reach is left out."""
        with self._lock:
            known = {
                i: self._machines[i].state if self._is_shown(i) else InstanceState.GONE
                for i in instance_ids
                if self._is_shown(i) or not self._may_be_cut_off(i, where or {})
            }
            if instance_ids and not known:
                self._need(self._cut)
            return known

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine that is pending or running; a crowd only in its region's turn."""
        with self._lock:
            found = [self._machines[i] for i in self._shown() if not self._machines[i].state.is_over]
        there = Counter(machine.pool.region for machine in found)
        listed = {region for region, many in there.items() if many <= CROWD or whole is None or region in whole}
        yield from (machine for machine in found if machine.pool.region in listed)
        self._need(self._cut)

    def terminate(self, instance_id: str) -> None:
        """End a machine. Harmless when it is already gone."""
        with self._lock:
            machine = self._machines.get(instance_id)
            self._need(self._cut & {machine.pool.region} if machine else self._cut)
            self.terminations.append(instance_id)
            if machine is not None:
                self.set_state(instance_id, InstanceState.TERMINATED)

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour; the same for every pool."""
        told = {pool: self._price for pool in pools if pool.region not in self._cut}
        if pools and not told:
            self._need(self._cut)
        return told

    # what EC2 does by itself

    def refuse(
        self,
        code: str = "InsufficientInstanceCapacity",
        scope: FailureScope = FailureScope.POOL,
        times: int | None = None,
        **match: str,
    ) -> None:
        """Refuse pools whose fields equal `match` (region, zone, instance_type, market); all when empty."""
        unknown = set(match) - set(Pool.__dataclass_fields__)
        if unknown:
            raise InvalidInput(f"a pool has no {', '.join(sorted(unknown))}")
        with self._lock:
            self._script.append(Capacity(code, scope, match, times))

    def allow(self) -> None:
        """Forget every refusal asked for so far."""
        with self._lock:
            self._script.clear()

    def limit(self, pool: Pool, most: int) -> None:
        """Let a pool have so many machines at a time."""
        with self._lock:
            self._room[pool] = most

    def come_short(self, missing: int) -> None:
        """Let the next launch give so many machines less than it promised, but one at least."""
        with self._lock:
            self._short = missing

    def set_state(self, instance_id: str, state: InstanceState) -> None:
        """Move a machine to this state."""
        with self._lock:
            self._machines[instance_id] = replace(self._machines[instance_id], state=state)

    def hide(self, instance_id: str, hidden: bool = True) -> None:
        """Let EC2 deny that it knows this machine, as it does for a moment after a launch."""
        with self._lock:
            (self._hidden.add if hidden else self._hidden.discard)(instance_id)

    def cut_off(self, region: str, cut: bool = True) -> None:
        """Let a region be out of reach: no request to it is sent, and its machines go on."""
        with self._lock:
            (self._cut.add if cut else self._cut.discard)(region)

    def adopt(self, machine: Machine) -> None:
        """Let a machine exist that no launch of this object made."""
        with self._lock:
            self._keep(machine)

    @property
    def machines(self) -> list[Machine]:
        """Every machine that ever was, oldest first, hidden ones too."""
        with self._lock:
            return list(self._machines.values())

    @property
    def alive(self) -> list[Machine]:
        """Machines that are pending or running, hidden ones too."""
        return [m for m in self.machines if not m.state.is_over]

    # beneath

    def _shown(self) -> list[str]:
        return [i for i in self._machines if self._is_shown(i)]

    def _is_shown(self, instance_id: str) -> bool:
        machine = self._machines.get(instance_id)
        return machine is not None and instance_id not in self._hidden and machine.pool.region not in self._cut

    def _made_by(self, run_id: str, launch: int) -> list[Machine]:
        """What EC2 shows of one launch, oldest first."""
        return [self._machines[i] for i in self._by_launch.get((run_id, launch), ()) if self._is_shown(i)]

    def _keep(self, machine: Machine) -> None:
        old = self._machines.get(machine.instance_id)
        if old is not None:
            self._by_launch[old.run_id, old.launch].remove(old.instance_id)
        self._machines[machine.instance_id] = machine
        self._by_launch[machine.run_id, machine.launch].append(machine.instance_id)

    def _may_be_cut_off(self, instance_id: str, where: Mapping[str, str]) -> bool:
        return where[instance_id] in self._cut if instance_id in where else bool(self._cut)

    def _need(self, regions: set[str]) -> None:
        if regions:
            raise Unavailable(f"{', '.join(sorted(regions))}: no answer; try again later")

    def _fill(self, request: dict[str, Any], pools: tuple[Pool, ...], now: datetime) -> LaunchAnswer:
        refusals: list[Refusal] = []
        nodes = request.get("Nodes", 1)
        for pool in pools:
            refusal = self._refusal(pool, now) or self._too_small(pool, nodes, now)
            if refusal is None:
                first, *others = (self._start(request, pool, now) for _ in range(self._given(nodes)))
                return LaunchAnswer(first, pool, tuple(refusals), tuple(others))
            refusals.append(refusal)
        return LaunchAnswer(None, None, tuple(refusals))

    def _given(self, nodes: int) -> int:
        """How many machines come of so many, which EC2 promises to be all."""
        short, self._short = self._short, 0
        return max(nodes - short, 1)

    def _too_small(self, pool: Pool, nodes: int, now: datetime) -> Refusal | None:
        room = self._room.get(pool)
        if room is None:  # the rule; else every launch would count every machine
            return None
        used = sum(m.pool == pool and not m.state.is_over for m in self._machines.values())
        if used + nodes <= room:
            return None
        code, said = "InsufficientInstanceCapacity", f"no {nodes} times {pool}"
        return Refusal(pool, FailureScope.POOL, code, said, now)

    def _refusal(self, pool: Pool, now: datetime) -> Refusal | None:
        line = next((line for line in self._script if line.refuses(pool)), None)
        if line is None:
            return None
        if line.times is not None:
            line.times -= 1
        return Refusal(pool, line.scope, line.code, f"no {pool}", now)

    def _start(self, request: dict[str, Any], pool: Pool, now: datetime) -> str:
        kind = "h" if is_host(pool.region) else "i"
        instance_id = f"{kind}-{len(self._machines) + 1:017x}"
        run_id, generation, launch = request["RunId"], request["Generation"], request["Launch"]
        self._keep(Machine(instance_id, InstanceState.PENDING, run_id, generation, launch, pool, now))
        return instance_id


def _not_sent(pools: tuple[Pool, ...], now: datetime, first: bool) -> LaunchAnswer:
    said = f"{pools[0].region} could not be reached, nothing was sent"
    if not first:
        raise Unavailable(said)
    code = "EndpointConnectionError"
    return LaunchAnswer(None, None, tuple(Refusal(pool, FailureScope.REGION, code, said, now) for pool in pools))


def _mismatch(pools: tuple[Pool, ...], now: datetime) -> LaunchAnswer:
    said = "this token was used with another request"
    code, scope = "IdempotentParameterMismatch", FailureScope.CONFIGURATION
    return LaunchAnswer(None, None, tuple(Refusal(pool, scope, code, said, now) for pool in pools))
