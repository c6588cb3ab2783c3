"""The doctor's look at hosts of one's own: each is asked by the function that has the keys, never from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from spotrelay.core.errors import Missing, SpotrelayError
from spotrelay.core.hosts import Host

if TYPE_CHECKING:
    from spotrelay.aws.clients import Clients
    from spotrelay.aws.stack import Stack

LEAST_FREE_BYTES = 5 * 10**9  # for the agent, a code bundle and the newest checkpoint of a small model
REMEDIES = {
    "HostUnreachable": "let AWS Lambda reach its sshd: address, port, firewall, tunnel",
    "HostKeyMismatch": "find out why; if the host was set up anew, remove it and add it with its new host key",
    "HostRefusesKey": "add the key's public half to ~/.ssh/authorized_keys there, for that user",
    "KeyUnusable": "put the private key, without a passphrase, where --key-secret says",
    "NoPython": "install Python 3.11 or newer there, or add the host again with --python",
    "PythonIncomplete": "install a Python with its whole standard library there, and name it with --python",
    "HostUnsupported": "a host runs Linux, with /proc",
    "HostDamaged": "look at the folder, its rights and its disk on the host",
}


class Examiner(Protocol):
    """Whoever asks hosts, with the keys."""

    def examine(self, name: str) -> Mapping[str, Any]:
        """What a host says about itself, or `trouble` (a code) and `why`."""
        ...


@dataclass(frozen=True)
class Finding:
    """What one look at a host found: `remedy` is empty where nothing is wrong."""

    state: str  # as in `spotrelay.console.doctor.Check`
    text: str
    remedy: str = ""


def registered(clients: Clients, stack: Stack) -> tuple[tuple[Host, ...], Examiner | None]:
    """The hosts of the stack, and who asks them; nobody where there is none to ask.

    Raises:
        Missing: hosts are registered, and the stack has no function that reaches them.
    """
    from spotrelay.aws.host_calls import CalledHosts
    from spotrelay.aws.host_store import DynamoHosts

    store = DynamoHosts(clients.client("dynamodb"), stack.table)
    hosts = store.hosts()
    return hosts, CalledHosts(clients.client("lambda"), stack.output("HostsFunction"), store) if hosts else None


def look(host: Host, examiner: Examiner) -> Finding:
    """One host, as the control plane finds it."""
    try:
        said = examiner.examine(host.name)
    except Missing as error:
        return Finding("failed", str(error), "spotrelay hosts list")
    except SpotrelayError as error:
        return Finding("unknown", str(error), "the function that reaches hosts gave no answer: look again later")
    if "trouble" in said:
        return Finding(
            "failed", str(said["why"]), REMEDIES.get(str(said["trouble"]), "spotrelay hosts check says more")
        )
    about = _about(host, said)
    if said["free_bytes"] < LEAST_FREE_BYTES:
        return Finding(
            "failed", about, f"make room in {said['folder']}: runs need {LEAST_FREE_BYTES / 1e9:.0f} GB there"
        )
    if host.draining:
        about += f"; takes no runs until `spotrelay hosts open {host.name}`"
    return Finding("ok", about)


def _about(host: Host, said: Mapping[str, Any]) -> str:
    gpus = f"{said['gpus']} GPUs" if said["gpus"] else "no GPU seen by nvidia-smi"
    busy = f", {len(said['at_work'])} of {host.slots} slots taken"
    return f"{host.address}: Python {said['python']}, {gpus}, {said['free_bytes'] / 1e9:.0f} GB free{busy}"
