"""What `spotrelay hosts` does: the registry, and a call through the function that reaches hosts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from spotrelay.console import wiring
from spotrelay.console.exits import AlreadyEnded
from spotrelay.console.output import table
from spotrelay.console.submit import hint
from spotrelay.console.wiring import Services
from spotrelay.core.errors import Missing, SpotrelayError
from spotrelay.core.hosts import Host, checked_host, parse_target
from spotrelay.core.ports import HostStore
from spotrelay.core.run import Run

NOTICE = "Interruption Notice Seen"


class Reach(Protocol):
    """Whoever connects to hosts."""

    def check(self, name: str) -> dict[str, Any]:
        """What a registered host says about itself."""
        ...


@dataclass(frozen=True)
class Desk:
    """Everything that these commands use."""

    services: Services
    hosts: HostStore
    reach: Reach


def connect(where: wiring.Where) -> Desk:
    """The desk of a deployed stack.

    Raises:
        NotReady, Unavailable: as `wiring.connect`.
        Missing: the stack is older than hosts; deploy it again.
    """
    from spotrelay.aws.host_calls import CalledHosts

    clients, stack = wiring.find(where)
    services = wiring.services_of(clients, stack)
    assert services.hosts is not None
    calls = CalledHosts(clients.client("lambda"), stack.output("HostsFunction"), services.hosts)
    return Desk(services, services.hosts, calls)


def read_host(
    name: str, target: str, key_secret: str, host_key: str, kind: str, slots: int, python: str, folder: str,
    price: float,
) -> Host:  # fmt: skip
    """The host that the options describe; the comment behind a public key is left out.

    Raises:
        InvalidInput: names everything that cannot work.
    """
    user, address, port = parse_target(target)
    key = " ".join(host_key.split()[:2])
    return checked_host(Host(name, user, address, key_secret, key, port, kind, slots, python, folder, price))


def add(desk: Desk, host: Host, check: bool) -> dict[str, Any]:
    """Register it; one that cannot be used is taken out again, so that no run waits for it.

    Raises:
        AlreadyExists: the name is taken.
        Unavailable: it was tried and is of no use; the text says why.
    """
    desk.hosts.add(host)
    if not check:
        return {}
    try:
        return desk.reach.check(host.name)
    except SpotrelayError:
        desk.hosts.remove(host.name)
        raise


def about(said: dict[str, Any]) -> str:
    """What a host says about itself, for a person."""
    free = said["free_bytes"] / 1e9
    return f"Python {said['python']}, {said['gpus']} GPUs, {free:.0f} GB free in {said['folder']}"


def listed(desk: Desk) -> list[dict[str, Any]]:
    """Each host with the runs that are on it."""
    runs = list(desk.services.runs.all_runs())
    return [
        {
            "host": host.name,
            "kind": host.kind,
            "target": f"ssh://{host.user}@{host.address}:{host.port}",
            "slots": host.slots,
            "draining": host.draining,
            "price": host.price,
            "runs": [run.run_id for run in runs if _machine_on(run, host.region)],
        }
        for host in desk.hosts.hosts()
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """The list for a person."""
    words = (
        (
            r["host"],
            r["kind"],
            r["target"],
            str(r["slots"]),
            "draining" if r["draining"] else "open",
            " ".join(r["runs"]),
        )
        for r in rows
    )
    table(("host", "kind", "target", "slots", "takes runs", "runs"), words)


def drain(desk: Desk, name: str) -> list[str]:
    """Mark the host, and tell the runs on it; the sweep tells those that did not hear. Their ids."""
    host = desk.hosts.drain(name)
    moved = []
    for run in desk.services.runs.all_runs():
        machine = _machine_on(run, host.region)
        if machine:
            detail = {"run_id": run.run_id, "instance-id": machine, "action": "terminate", "source": "drain"}
            hint(desk.services, NOTICE, **detail)
            moved.append(run.run_id)
    return moved


def remove(desk: Desk, name: str, lost: bool) -> list[str]:
    """Forget a host; the runs that were on it when it was said to be lost.

    Raises:
        Missing: there is no such host.
        AlreadyEnded: runs are on it, and it is not said to be lost.
    """
    host = next((host for host in desk.hosts.hosts() if host.name == name), None)
    if host is None:
        raise Missing(f"no host {name} is registered: spotrelay hosts list")
    still = [run.run_id for run in desk.services.runs.all_runs() if _machine_on(run, host.region)]
    if still and not lost:
        why = f"{', '.join(still)} is on host {name}: drain it first, or say --lost if it is gone for good"
        raise AlreadyEnded(why)
    desk.hosts.remove(name)
    return still


def _machine_on(run: Run, region: str) -> str:
    """The run's machine on this host that may still be at work; empty when there is none."""
    found = (a.instance_id for a in run.live if a.pool is not None and a.pool.region == region)
    return next((machine for machine in found if machine), "")
