"""No SDK: requests in the open on the standard library's sockets, unsigned. As fast as Python can be."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from awscrt import checksums

from benchmarks.clients.client import BUCKET, Part, together

STEP = 2**18  # bytes asked of the socket in one go


class PlainClient:
    """http.client, one connection for each thread."""

    def __init__(self, endpoint: str, connections: int) -> None:
        self._host = urlsplit(endpoint).netloc
        self._connections = connections
        self._local = threading.local()

    def put(self, parts: Sequence[Part]) -> None:
        together(self._connections, self.put_one, parts)

    def get(self, parts: Sequence[Part]) -> None:
        together(self._connections, self.get_one, parts)

    def put_one(self, part: Part) -> str:
        """Create one object; its version."""
        value = base64.b64encode(checksums.crc32c(part.view).to_bytes(4, "big")).decode()
        headers = {"If-None-Match": "*", "x-amz-checksum-crc32c": value, "Content-Length": str(len(part.view))}
        connection = self._connection()
        connection.request("PUT", f"/{BUCKET}/{quote(part.key)}", part.view, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise OSError(f"put {part.key}: {answer.status} {said[:200]!r}")
        return answer.headers["x-amz-version-id"]

    def get_one(self, part: Part, start: int | None = None) -> None:
        """Read one object, or the range of it that begins there and fits the memory."""
        headers = {} if start is None else {"Range": f"bytes={start}-{start + len(part.view) - 1}"}
        connection = self._connection()
        connection.request("GET", f"/{BUCKET}/{quote(part.key)}", headers=headers)
        answer = connection.getresponse()
        left = part.view
        while left and (got := answer.readinto(left)):
            left = left[got:]
        answer.read()
        if left or answer.status not in (200, 206):
            raise OSError(f"get {part.key}: {answer.status}, {len(left)} bytes are missing")

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self._host)
            self._local.connection.connect()
            self._local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found: http.client.HTTPConnection = self._local.connection
        return found
