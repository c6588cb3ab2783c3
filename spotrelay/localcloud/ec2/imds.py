"""The instance metadata service, version 2: one loopback port for each instance, all on one thread.

Source:
    EC2 User Guide, "Use the Instance Metadata Service": a token by PUT with its lifetime, 400 for a wrong one, 401
    without a token, 403 where the service is off or the request was forwarded.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

_LONGEST_TOKEN_S = 21600
_HEAD_LIMIT = 16 * 1024
_IDLE_S = 60.0
_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105  # a header's name
_T = TypeVar("_T")
_log = logging.getLogger(__name__)

Read = Callable[[str], "str | bytes | None"]
"""Path → what the instance's metadata says there; None for nothing. May take a while (credentials)."""


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """An HTTP request without its body, which nobody here needs."""

    method: str
    path: str
    headers: dict[str, str]
    keep_alive: bool


class Door:
    """The metadata service of one instance.

    Args:
        read: answers a GET.
        options: MetadataOptions of the launch.
    """

    def __init__(self, read: Read, options: dict[str, Any]) -> None:
        self._read = read
        self._enabled = options.get("HttpEndpoint", "enabled") != "disabled"
        self._token_needed = options.get("HttpTokens", "required") != "optional"
        self._tokens: dict[str, float] = {}
        self.failure: int | None = None
        """HTTP status with which everything is answered while the service is broken"""

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        if self.failure is not None:
            return Answer(self.failure)
        if not self._enabled:
            return Answer(HTTPStatus.FORBIDDEN)
        path = request.path.partition("?")[0]
        if request.method == "PUT":
            return self._issue(path, request.headers)
        if request.method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "OPTIONS, GET, HEAD, PUT"})
        if not self._admits(request.headers):
            return Answer(HTTPStatus.UNAUTHORIZED)
        found = self._read(path)
        if found is None:
            return Answer(HTTPStatus.NOT_FOUND)
        body = found.encode() if isinstance(found, str) else found
        return Answer(HTTPStatus.OK, b"" if request.method == "HEAD" else body, {"Content-Type": "text/plain"})

    def _issue(self, path: str, headers: dict[str, str]) -> Answer:
        if path.rstrip("/") != "/latest/api/token":
            return Answer(HTTPStatus.FORBIDDEN)
        if "x-forwarded-for" in headers:
            return Answer(HTTPStatus.FORBIDDEN)
        asked = headers.get(_TTL, "").strip()
        if not (asked.isascii() and asked.isdigit() and 1 <= int(asked) <= _LONGEST_TOKEN_S):
            return Answer(HTTPStatus.BAD_REQUEST)
        now = time.monotonic()
        self._tokens = {token: until for token, until in self._tokens.items() if until > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = now + int(asked)
        return Answer(HTTPStatus.OK, token.encode(), {"Content-Type": "text/plain", _TTL: asked})

    def _admits(self, headers: dict[str, str]) -> bool:
        token = headers.get(_TOKEN)
        if token is None:
            return not self._token_needed
        return self._tokens.get(token, 0.0) > time.monotonic()


class MetadataService:
    """Serves the doors; thread-safe. Loopback only."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: dict[str, asyncio.Server] = {}
        self._doors: dict[str, Door] = {}
        self._connections: dict[str, set[asyncio.StreamWriter]] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="ec2-imds", daemon=True)
        self._thread.start()

    def open(self, instance_id: str, door: Door) -> str:
        """Serve an instance's metadata; the address of its service."""
        return self._call(self._open(instance_id, door))

    def close_door(self, instance_id: str) -> None:
        """End an instance's service with its connections: nobody listens there any more."""
        self._call(self._close(instance_id))

    def door(self, instance_id: str) -> Door | None:
        """The open door of an instance."""
        return self._doors.get(instance_id)

    def close(self) -> None:
        """End every door."""
        for instance_id in list(self._servers):
            self.close_door(instance_id)
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self, instance_id: str, door: Door) -> str:
        writers = self._connections.setdefault(instance_id, set())
        server = await asyncio.start_server(
            lambda reader, writer: self._serve(door, writers, reader, writer), "127.0.0.1", 0, limit=_HEAD_LIMIT
        )
        self._servers[instance_id] = server
        self._doors[instance_id] = door
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _close(self, instance_id: str) -> None:
        server = self._servers.pop(instance_id, None)
        self._doors.pop(instance_id, None)
        if server is None:
            return
        server.close()
        for writer in list(self._connections.pop(instance_id, ())):
            writer.transport.abort()

    async def _finish(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    async def _serve(
        self,
        door: Door,
        writers: set[asyncio.StreamWriter],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                answer = await self._answer(door, request)
                writer.write(_encode(answer, request))
                await writer.drain()
                if not request.keep_alive:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            return  # the client has gone, or has nothing more to say
        except (ValueError, asyncio.LimitOverrunError):
            writer.write(_encode(Answer(HTTPStatus.BAD_REQUEST), Request("GET", "/", {}, False)))
        finally:
            writers.discard(writer)
            writer.close()

    async def _answer(self, door: Door, request: Request) -> Answer:
        try:
            if "/security-credentials/" in request.path:
                return await self._loop.run_in_executor(None, door.answer, request)
            return door.answer(request)
        except Exception:  # noqa: BLE001  # told in the log and to the client
            _log.exception("the metadata service cannot answer %s %s", request.method, request.path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when there is none.

    Raises:
        ValueError: not HTTP.
    """
    async with asyncio.timeout(_IDLE_S):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, version = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        await reader.readexactly(min(int(headers.get("content-length", "0")), _HEAD_LIMIT))
    wants_close = headers.get("connection", "").lower() == "close" or version != "HTTP/1.1"
    return Request(method, path, headers, not wants_close)


def _encode(answer: Answer, request: Request) -> bytes:
    status = HTTPStatus(answer.status)
    headers = {
        "Server": "EC2ws",
        "Content-Length": str(len(answer.body)),
        "Connection": "keep-alive" if request.keep_alive else "close",
        **answer.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + answer.body
