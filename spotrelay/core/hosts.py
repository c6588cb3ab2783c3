"""Machines of one's own: what the stack knows of a host, and the pool that it is."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import Market, Pool

PROVIDER = "ssh"
NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}\Z")
TARGET = re.compile(r"^(?:ssh://)?(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<address>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?/?\Z")  # fmt: skip  # noqa: E501
KIND = re.compile(r"^[a-z0-9][a-z0-9._-]{0,40}\Z")
HOST_KEY = re.compile(r"^(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]{40,}={0,3}\Z")
SECRET = re.compile(r"^(ssm:/spotrelay-hosts/[A-Za-z0-9_./-]+|secretsmanager:spotrelay-hosts/[A-Za-z0-9/_+=.@-]+)\Z")
PATH = re.compile(r"^[A-Za-z0-9_./+-]+\Z")  # goes through a login shell of any kind
MOST_SLOTS = 64


@dataclass(frozen=True)
class Host:
    """One machine of one's own, as it was registered. Its name stands for its address for as long as it is there."""

    name: str
    user: str
    address: str
    key_secret: str  # ssm:/spotrelay-hosts/… or secretsmanager:spotrelay-hosts/…, where the private key is
    host_key: str  # the only public key that is believed: "ssh-ed25519 AAAA…"
    port: int = 22
    kind: str = "own"  # stands where EC2's pools have an instance type
    slots: int = 1  # machines at once
    python: str = ""  # of the agent, and the first on the program's PATH; empty: what is found there
    folder: str = ".spotrelay"  # on the host; relative to the user's home
    price: float = 0.0  # dollars an hour
    draining: bool = False  # a person wants it empty: nothing starts there, what runs there moves on
    schema: int = 1

    @property
    def region(self) -> str:
        """A host answers, or is out of reach, as a region does: each is one of its own."""
        return region_of(self.name)

    @property
    def pool(self) -> Pool:
        """The capacity that it is."""
        return Pool(self.region, self.name, self.kind, Market.OWN.value)


def is_host(region: str) -> bool:
    """Whether this region is a machine of one's own."""
    return region.startswith(f"{PROVIDER}:")


def region_of(name: str) -> str:
    """The region that the host of this name is."""
    return f"{PROVIDER}:{name}"


def name_of(region: str) -> str:
    """The host that this region is."""
    return region.partition(":")[2]


def machine_id(stack: str, region: str, token: str) -> str:
    """The id of the machine that a launch makes on a host: known before it is sent, the same each time.

    Another stack's launch with the same token makes another one: both may share a login on the host.
    """
    return "h-" + hashlib.sha256(f"{stack}\n{region}\n{token}".encode()).hexdigest()[:17]


def is_on_host(instance_id: str) -> bool:
    """Whether an id is that of a machine of one's own."""
    return instance_id.startswith("h-")


def prices_of(hosts: Iterable[Host], pools: Iterable[Pool]) -> dict[Pool, float]:
    """Dollars an hour of those pools that are hosts, as they were registered."""
    known = {host.region: host.price for host in hosts}
    return {pool: known[pool.region] for pool in pools if pool.region in known}


def open_pools(hosts: Iterable[Host]) -> tuple[Pool, ...]:
    """The pools of the hosts that take runs, by name."""
    return tuple(host.pool for host in sorted(hosts, key=lambda h: h.name) if not host.draining)


def parse_target(text: str) -> tuple[str, str, int]:
    """User, address and port in `ssh://user@host:port`.

    Raises:
        InvalidInput: it is no such text.
    """
    found = TARGET.match(text)
    port = int(found["port"] or 22) if found else 0
    if found is None or not 0 < port < 65536:
        raise InvalidInput(f"{text!r} is no host: write ssh://user@host or ssh://user@host:port")
    return found["user"], found["address"].strip("[]"), port


def checked_host(host: Host) -> Host:
    """The host itself.

    Raises:
        InvalidInput: names everything about it that cannot work.
    """
    wrong = [
        (not NAME.match(host.name), f"name {host.name!r}: 1 to 31 lower-case letters, digits and hyphens"),
        (not KIND.match(host.kind), f"kind {host.kind!r}: lower-case letters, digits, dots, hyphens, such as rtx4090"),
        (not HOST_KEY.match(host.host_key), "host key: a public key such as 'ssh-ed25519 AAAA…' was expected"),
        (not SECRET.match(host.key_secret), f"key secret {host.key_secret!r}: {_WHERE_KEYS_ARE}"),
        (not 1 <= host.slots <= MOST_SLOTS, f"slots: 1 to {MOST_SLOTS}"),
        (not (math.isfinite(host.price) and host.price >= 0), "price: dollars an hour, zero or more"),
        (bool(host.python) and not (PATH.match(host.python) and host.python.startswith("/")), "python: a whole path"),
        (not PATH.match(host.folder) or ".." in host.folder, "folder: a path without spaces, below home or whole"),
    ]
    told = [text for bad, text in wrong if bad]
    if told:
        raise InvalidInput(f"host {host.name}: {'; '.join(told)}")
    return host


_WHERE_KEYS_ARE = (
    "ssm:/spotrelay-hosts/… or secretsmanager:spotrelay-hosts/… was expected; what lies elsewhere may be "
    "readable for the programs of runs"
)
