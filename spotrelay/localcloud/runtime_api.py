"""The HTTP side of Lambda's Runtime API, for one execution environment.

Source:
    AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PREFIX = "/2018-06-01/runtime"
_POLL_S = 0.2


@dataclass
class Invocation:
    """One event on its way through the runtime, and what came back."""

    request_id: str
    payload: bytes
    deadline_ms: int
    """epoch"""
    function_arn: str
    trace_id: str | None = None
    result: bytes | None = None
    error: dict[str, Any] | None = None
    finished: threading.Event = field(default_factory=threading.Event)


class RuntimeApi:
    """A server on a free loopback port that hands out one invocation at a time and takes its answer."""

    def __init__(self) -> None:
        self.settled = threading.Event()
        self.init_error: dict[str, Any] | None = None
        self._waiting: queue.Queue[Invocation] = queue.Queue()
        self._current: Invocation | None = None
        self._closed = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve, name="runtime-api", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port, as AWS_LAMBDA_RUNTIME_API wants them."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def offer(self, invocation: Invocation) -> None:
        """Give the runtime its next event; anything answered for an earlier one no longer counts."""
        self._current = invocation
        self._waiting.put(invocation)

    def close(self) -> None:
        """Stop answering; the port is free afterwards."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next(self) -> Invocation | None:
        """The next event, as soon as there is one; None when the environment is being taken down."""
        self.settled.set()
        while not self._closed.is_set():
            try:
                return self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None

    def answer(self, request_id: str, body: bytes, failed: bool) -> bool:
        """Take an answer; False when it is not for the event that is being worked on."""
        current = self._current
        if current is None or current.request_id != request_id:
            return False
        self._current = None
        if failed:
            current.error = _as_error(body)
        else:
            current.result = body
        current.finished.set()
        return True

    def fail_init(self, body: bytes) -> None:
        """The runtime could not load the handler."""
        self.init_error = _as_error(body)
        self.settled.set()

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=_POLL_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: RuntimeApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A runtime that was killed while we answered is no news; its environment notices the exit."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        if self.path != f"{_PREFIX}/invocation/next":
            self._reply(404, b"{}")
            return
        invocation = self.server.api.next()
        if invocation is None:
            self._reply(500, b'{"errorMessage":"the execution environment is gone"}')
            return
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
        }
        if invocation.trace_id:
            headers["Lambda-Runtime-Trace-Id"] = invocation.trace_id
        self._reply(200, invocation.payload, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == f"{_PREFIX}/init/error":
            self.server.api.fail_init(body)
            self._reply(202, b'{"status":"OK"}')
            return
        parts = self.path.removeprefix(f"{_PREFIX}/invocation/").split("/")
        if len(parts) != 2 or parts[1] not in ("response", "error"):
            self._reply(404, b"{}")
        elif self.server.api.answer(parts[0], body, failed=parts[1] == "error"):
            self._reply(202, b'{"status":"OK"}')
        else:
            self._reply(400, b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}')

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the request log of the cloud is elsewhere."""

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _as_error(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    return {"errorType": "Unknown", "errorMessage": body.decode("utf-8", "replace")}
