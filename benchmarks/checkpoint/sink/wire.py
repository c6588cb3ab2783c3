"""HTTP/1.1 on a blocking socket, with bodies received straight into the memory that keeps them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from benchmarks.checkpoint.sink.memory import BLOCK, Blocks

LONGEST_HEAD = 64 * 2**10  # bytes of a request's head

REASONS = {100: "Continue", 200: "OK", 204: "No Content", 206: "Partial Content"}


class Gone(Exception):
    """The other side has closed the connection."""


@dataclass(frozen=True)
class Pace:
    """How fast an emulated endpoint is; zeros: as fast as it can be."""

    bytes_per_s: float = 0.0  # of one connection
    first_byte_s: float = 0.0

    def begin(self) -> float:
        """Wait for the first byte; when the transfer began."""
        if self.first_byte_s:
            time.sleep(self.first_byte_s)
        return time.monotonic()

    def keep(self, begun: float, moved: int) -> None:
        """Wait until so many bytes may have been moved."""
        if self.bytes_per_s:
            ahead = begun + moved / self.bytes_per_s - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


@dataclass(frozen=True)
class Request:
    """One request's head."""

    method: str
    path: str  # unquoted
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class Body:
    """Bytes of a request, and the trailers that came after them."""

    segments: list[memoryview]
    size: int
    trailers: dict[str, str] = field(default_factory=dict)
    blocks: list[memoryview] = field(default_factory=list)  # to be given back

    def text(self) -> bytes:
        """All of it in one piece."""
        return b"".join(self.segments)


class Source(Protocol):
    """Bytes of a body, however they are framed."""

    def fill(self, view: memoryview) -> None:
        """Exactly so many of the next bytes."""
        ...

    def line(self) -> bytes:
        """The next line, without its end."""
        ...


class Connection:
    """What arrives, and what is answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(LONGEST_HEAD)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0

    def head(self) -> Request:
        """The next request's head.

        Raises:
            Gone: there is none.
        """
        while (at := self._buffer.find(b"\r\n\r\n", self._begin, self._end)) < 0:
            self._more()
        lines = bytes(self._view[self._begin : at]).decode("latin-1").split("\r\n")
        self._begin = at + 4
        method, target, _ = lines[0].split(" ", 2)
        parts = urlsplit(target)
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return Request(method, unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)), headers)

    def fill(self, view: memoryview) -> None:
        """See `Source`."""
        held = min(len(view), self._end - self._begin)
        view[:held] = self._view[self._begin : self._begin + held]
        self._begin += held
        while held < len(view):
            got = self.sock.recv_into(view[held:], 0, socket.MSG_WAITALL)
            if not got:
                raise Gone
            held += got

    def line(self) -> bytes:
        """See `Source`."""
        while (at := self._buffer.find(b"\r\n", self._begin, self._end)) < 0:
            self._more()
        text = bytes(self._view[self._begin : at])
        self._begin = at + 2
        return text

    def _more(self) -> None:
        if self._begin:
            left = self._end - self._begin
            self._view[:left] = bytes(self._view[self._begin : self._end])
            self._begin, self._end = 0, left
        if self._end == LONGEST_HEAD:
            raise Gone
        got = self.sock.recv_into(self._view[self._end :])
        if not got:
            raise Gone
        self._end += got

    def answer(
        self, status: int, headers: dict[str, str], body: list[memoryview] | bytes = b"", pace: Pace | None = None
    ) -> None:
        """Send a whole answer; Content-Length is the caller's where there is no body to count."""
        parts = [memoryview(body)] if isinstance(body, bytes) else body
        size = sum(len(part) for part in parts)
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in {"Content-Length": str(size), **headers}.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        pace = pace or Pace()
        begun = pace.begin()
        if size <= LONGEST_HEAD:
            self.sock.sendall(head + b"".join(parts))
            return
        self.sock.sendall(head)
        moved = 0
        for part in parts:
            self.sock.sendall(part)
            moved += len(part)
            pace.keep(begun, moved)

    def receive(self, request: Request, blocks: Blocks, pace: Pace) -> Body:
        """The request's body, in blocks."""
        if request.headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        trailers: dict[str, str] = {}
        runs = _runs(self, request, trailers)
        segments: list[memoryview] = []
        taken: list[memoryview] = []
        try:
            size = self._store(runs, segments, taken, blocks, pace)
        except BaseException:
            blocks.give_back(taken)
            raise
        return Body(segments, size, trailers, taken)

    def _store(
        self,
        runs: Iterator[tuple[Source, int]],
        segments: list[memoryview],
        taken: list[memoryview],
        blocks: Blocks,
        pace: Pace,
    ) -> int:
        room, size, begun = memoryview(b""), 0, pace.begin()
        for source, length in runs:
            left = length
            while left:
                if not room:
                    taken.append(blocks.take())
                    room = taken[-1]
                    segments.append(room[:0])
                now = min(left, len(room))
                source.fill(room[:now])
                segments[-1] = taken[-1][: BLOCK - len(room) + now]
                room, left, size = room[now:], left - now, size + now
                pace.keep(begun, size)
        return size


class _Chunked:
    """A body in HTTP's own chunks."""

    def __init__(self, below: Source) -> None:
        self._below = below
        self._left = 0
        self.ended = False

    def fill(self, view: memoryview) -> None:
        while view:
            self._open()
            if self.ended:
                raise Gone
            now = min(self._left, len(view))
            self._below.fill(view[:now])
            self._left -= now
            view = view[now:]
            self._close()

    def line(self) -> bytes:
        text = bytearray()
        one = memoryview(bytearray(1))
        while not text.endswith(b"\r\n"):
            self.fill(one)
            text += one
        return bytes(text[:-2])

    def runs(self) -> Iterator[tuple[Source, int]]:
        """Each chunk."""
        while True:
            self._open()
            if self.ended:
                return
            yield self, self._left

    def drain(self) -> None:
        """Read up to the end."""
        self._open()

    def _open(self) -> None:
        if self._left or self.ended:
            return
        self._left = int(self._below.line().split(b";")[0], 16)
        if not self._left:
            self.ended = True
            while self._below.line():
                continue

    def _close(self) -> None:
        if not self._left:
            self._below.line()


def _runs(connection: Connection, request: Request, trailers: dict[str, str]) -> Iterator[tuple[Source, int]]:
    """Where to read how many bytes of the body from."""
    chunked = "chunked" in request.headers.get("transfer-encoding", "")
    outer = _Chunked(connection) if chunked else None
    source: Source = outer or connection
    if "aws-chunked" in request.headers.get("content-encoding", ""):
        while size := int(source.line().split(b";")[0], 16):
            yield source, size
            source.line()
        while text := source.line():
            name, _, value = text.decode("latin-1").partition(":")
            trailers[name.strip().lower()] = value.strip()
        if outer:
            outer.drain()
    elif outer:
        yield from outer.runs()
    else:
        yield connection, int(request.headers.get("content-length", "0"))
