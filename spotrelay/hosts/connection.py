"""One connection to a host: the pinned key or nothing, a question in, an answer out. Nothing secret in an argument."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from spotrelay.core.hosts import Host
from spotrelay.hosts import keeper

CONNECT_S = 5.0  # to a host that answers; a notice may be running
LOGIN_S = 8.0
ANSWER_S = 12.0
SENDING_S = 60.0  # the agent's archive, once for each host and version
PROGRAM = Path(keeper.__file__).read_text()
PYTHONS = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
NO_PYTHON = 69
OLDEST = f"import sys; sys.exit({NO_PYTHON} if sys.version_info < (3, 11) else 0)"
READ_AND_RUN = (
    f"import sys; sys.version_info < (3, 11) and sys.exit({NO_PYTHON}); import json; "
    "a = json.loads(sys.stdin.buffer.readline()); g = {'__name__': 'keeper'}; exec(a['keeper'], g); g['answer'](a)"
)
MARK = b"spotrelay:"


class NoConnection(Exception):
    """No connection came about: nothing was asked. `code` says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class CutOff(Exception):
    """The question was sent, and no clear answer came."""


class Line:
    """An open connection."""

    def __init__(self, connection: asyncssh.SSHClientConnection, host: Host) -> None:
        self._connection = connection
        self._host = host

    async def ask(self, question: Mapping[str, Any], body: bytes = b"") -> dict[str, Any]:
        """The keeper's answer.

        Raises:
            CutOff: it did not come, or is none.
        """
        asked = json.dumps({**question, "keeper": PROGRAM}).encode() + b"\n" + body
        try:
            done = await asyncio.wait_for(
                self._connection.run(command(self._host.python), input=asked, encoding=None),
                SENDING_S if body else ANSWER_S,
            )
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise CutOff(f"host {self._host.name}: the answer broke off ({type(error).__name__}: {error})") from error
        if done.exit_status == NO_PYTHON:
            wanted = self._host.python or "python3"
            return {"refused": "NoPython", "why": f"{wanted} is not there, or older than 3.11: name one with --python"}
        return self._read(_bytes(done.stdout), _bytes(done.stderr))

    def _read(self, out: bytes, err: bytes) -> dict[str, Any]:
        marked = [line for line in out.splitlines() if line.startswith(MARK)]
        if not marked:
            said = (err or out).decode("utf-8", "replace").strip()[-400:]
            raise CutOff(f"host {self._host.name}: no answer, but: {said or 'nothing'}")
        return dict(json.loads(marked[-1][len(MARK) :]))


def command(python: str) -> str:
    """What the host's login shell, of whatever kind, is asked to run: constant but for the path of Python."""
    run = f"-I -c {shlex.quote(READ_AND_RUN)}"
    tried = [shlex.quote(python)] if python else PYTHONS
    only = "" if python else f" && {{}} -I -c {shlex.quote(OLDEST)} 2>/dev/null"
    tries = [f"if command -v {p} >/dev/null 2>&1{only.format(p)}; then exec {p} {run}; fi" for p in tried]
    return f"exec /bin/sh -c {shlex.quote('; '.join([*tries, f'exit {NO_PYTHON}']))}"


@asynccontextmanager
async def connected(host: Host, private_key: str) -> AsyncIterator[Line]:
    """A connection to this host and no other, within a few seconds.

    Raises:
        NoConnection: there is none; nothing was asked.
    """
    connection = await _connect(host, private_key)
    try:
        yield Line(connection, host)
    finally:
        connection.abort()


async def _connect(host: Host, private_key: str) -> asyncssh.SSHClientConnection:
    where = f"{host.user}@{host.address}:{host.port}"
    try:
        key = asyncssh.import_private_key(private_key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise NoConnection(
            "KeyUnusable", f"{host.key_secret} holds no private key without passphrase: {error}"
        ) from error
    try:
        believed: tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]] = (
            [asyncssh.import_public_key(host.host_key)],
            [],
            [],
        )
        return await asyncio.wait_for(
            asyncssh.connect(
                host.address, host.port, username=host.user, client_keys=[key], known_hosts=believed,
                preferred_auth="publickey", agent_path=None, config=None, gss_host=None,
                connect_timeout=CONNECT_S, login_timeout=LOGIN_S,
            ),
            CONNECT_S + LOGIN_S,
        )  # fmt: skip
    except asyncssh.HostKeyNotVerifiable as error:
        text = f"{where} shows another host key than the one that was registered: somebody may stand in between"
        raise NoConnection("HostKeyMismatch", text) from error
    except asyncssh.PermissionDenied as error:
        raise NoConnection("HostRefusesKey", f"{where} does not let the key in {host.key_secret} in") from error
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise NoConnection("HostUnreachable", f"{where}: {type(error).__name__}: {error}") from error


def _bytes(output: Any) -> bytes:
    return output if isinstance(output, bytes) else str(output or "").encode()
