"""A real sshd on loopback, as this user, with a key and a configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from spotrelay.core.hosts import Host

SEARCHED = (*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/usr/local/sbin", "/sbin")
MISSING = "no sshd here: apt-get install openssh-server (`make sshd` does where it may)"


def find_sshd() -> str | None:
    """The program, which demands to be started by its whole path."""
    return shutil.which("sshd", path=os.pathsep.join(SEARCHED))


def need_sshd() -> str:
    """The program; skips the test where it cannot be had, and fails it in CI."""
    found = find_sshd()
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
    assert found is not None
    return found


class Sshd:
    """One host that can be reached, or not."""

    def __init__(self, folder: Path, name: str, environment: Mapping[str, str]) -> None:
        self._program = need_sshd()
        self.folder = folder
        self.name = name
        self.private_key = _new_key(folder / "client")
        _new_key(folder / "host")
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        self.port = _free_port()
        (folder / "config").write_text(self._config(environment))
        self._server: subprocess.Popen[bytes] | None = None

    def host(self, **fields: object) -> Host:
        """As it would be registered."""
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        given: dict[str, object] = {
            "name": self.name, "user": getpass.getuser(), "address": "127.0.0.1", "port": self.port,
            "key_secret": f"ssm:/spotrelay-hosts/{self.name}", "host_key": key, "kind": "lab",
            "python": sys.executable, "price": 0.35, "folder": str(self.folder / "machines"),
        }  # fmt: skip
        return Host(**{**given, **fields})  # type: ignore[arg-type]

    @property
    def target(self) -> str:
        """As a person writes it."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Be reachable."""
        if self._server is not None:
            return
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd confines itself
        with (self.folder / "sshd.log").open("ab") as log:
            command = [self._program, "-D", "-e", "-f", str(self.folder / "config")]
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd does not start: {(self.folder / 'sshd.log').read_text()[-800:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Be out of reach; what runs goes on."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _config(self, environment: Mapping[str, str]) -> str:
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder / 'host'}", "PidFile none",
            f"AuthorizedKeysFile {self.folder / 'authorized'}", "StrictModes no", "UsePAM no",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
            "PubkeyAuthentication yes", "MaxStartups 100", "LogLevel VERBOSE",
        ]  # fmt: skip
        given = " ".join(f'"{name}={value}"' for name, value in environment.items())
        return "\n".join([*lines, *([f"SetEnv {given}"] if given else [])]) + "\n"

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


@contextmanager
def sshd(folder: Path, name: str, environment: Mapping[str, str] | None = None) -> Iterator[Sshd]:
    """A reachable host, in a folder of its own."""
    folder.mkdir(parents=True)
    host = Sshd(folder, name, environment or {})
    host.start()
    try:
        yield host
    finally:
        host.stop()


def _new_key(path: Path) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(path))
    path.chmod(0o600)
    key.write_public_key(f"{path}.pub")
    return path.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
