"""Hosts with a stand-in for the agent, as a provider under test."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import UnknownRun
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec
from spotrelay.hosts.keeper import end
from spotrelay.hosts.machines import Setting, SshMachines
from spotrelay.testing import ManualClock
from spotrelay.testing.contracts.samples import NOON
from spotrelay.testing.hosts import MemoryHosts
from tests.hosts.sshd import Sshd

AGENT = """
import json, os, pathlib, subprocess, sys, time
work = pathlib.Path(os.environ["SPOTRELAY_WORK"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(work / "agent.json.part").write_text(json.dumps({"pid": os.getpid(), "child": child.pid, "environ": dict(os.environ)}))
(work / "agent.json.part").rename(work / "agent.json")
time.sleep(600)
"""
SPEC = Spec(command=("python", "train.py"), instance_types=("g5.xlarge",))


def archive(text: str = AGENT) -> bytes:
    """An agent's archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("__main__.py", text)
    return packed.getvalue()


STACK = f"Lab{os.getpid()}"  # of this process: others test on hosts of the same names beside it


class Runs:
    """Every run exists; which machine belongs to which is written down by the test."""

    def __init__(self) -> None:
        self.known: dict[str, Run] = {}
        self.machines: dict[str, str] = {}

    def load(self, run_id: str) -> Run:
        if run_id.startswith("no-"):
            raise UnknownRun(run_id)
        return self.known.get(run_id) or Run(run_id, SPEC, NOON)

    def run_of(self, instance_id: str) -> str | None:
        return self.machines.get(instance_id)


class Issuer:
    """Hands out numbered credentials that last an hour."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.issued: list[tuple[str, str]] = []  # run, machine

    def issue(self, run: Run, machine: str) -> dict[str, str]:
        self.issued.append((run.run_id, machine))
        number = f"{len(self.issued):04d}"
        ends = self._clock.now().astimezone(UTC) + timedelta(hours=1)
        key = {"AccessKeyId": f"ASIA{number}", "SecretAccessKey": f"secret-{number}"}
        return {**key, "SessionToken": f"token-{number}", "Expiration": ends.isoformat()}


class Lab:
    """Two hosts and what stands around them."""

    def __init__(self, *servers: Sshd, agent: bytes | None = None, slots: int = 1) -> None:
        self.servers = {server.name: server for server in servers}
        self.hosts = MemoryHosts(*(server.host(slots=slots) for server in servers))
        self.runs = Runs()
        self.clock = ManualClock(NOON)
        self.issuer = Issuer(self.clock)
        self.fetched = 0
        self._agent = agent or archive()
        told = {"SPOTRELAY_TABLE": "table", "SPOTRELAY_BUCKET": "bucket", "SPOTRELAY_BUS": "bus"}
        setting = Setting(
            STACK, hashlib.sha256(self._agent).hexdigest(), {**told, "SPOTRELAY_HOME_REGION": "us-east-1"},
            Timings().scaled(0.05),
        )  # fmt: skip
        self.machines = SshMachines(self.hosts, self.runs, self.issuer, self._key, self._fetch, setting, self.clock)

    def home(self, host: str, machine: str) -> Path:
        """The folder of a machine on a host."""
        return self.servers[host].folder / "machines" / STACK / host / machine

    def change(self, name: str, **fields: object) -> None:
        """Let a host be registered differently."""
        self.hosts.remove(name)
        self.hosts.add(replace(self.servers[name].host(), **fields))  # type: ignore[arg-type]

    def clear(self) -> None:
        """Kill what was left behind, and empty the hosts."""
        for name, server in self.servers.items():
            for home in self.home(name, "x").parent.glob("h-*"):
                end(home.name, 0.0)
            shutil.rmtree(server.folder / "machines", ignore_errors=True)

    def _key(self, reference: str) -> str:
        return self.servers[reference.rpartition("/")[2]].private_key

    def _fetch(self) -> bytes:
        self.fetched += 1
        return self._agent


def at(hours: float) -> datetime:
    """So many hours after noon."""
    return NOON + timedelta(hours=hours)
