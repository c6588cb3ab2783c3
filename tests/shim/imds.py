"""A metadata service on loopback that a test can make say, refuse or delay anything."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "/latest/api/token"
NOTICE = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class Imds:
    """What the service says; change it at any time."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.said: dict[str, bytes] = {}
        self.failures: list[int] = []  # status of the next answers
        self.token = "token-1"
        self.asked: list[str] = []
        self.date: str | None = None
        self.delay_s = 0.0

    def announce(self, action: str = "terminate", left: timedelta = timedelta(seconds=2)) -> None:
        """An interruption this far ahead."""
        at = (datetime.now(UTC) + left).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.said[NOTICE] = json.dumps({"action": action, "time": at}).encode()

    def recommend(self, at: str = "2026-01-05T08:00:00Z") -> None:
        """A rebalance recommendation."""
        self.said[REBALANCE] = json.dumps({"noticeTime": at}).encode()


@contextmanager
def serving() -> Iterator[Imds]:
    """The service, for the time of the block."""
    imds = Imds()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, imds.token.encode()) if self.path == TOKEN else self._answer(403, b"")

        def do_GET(self) -> None:
            imds.asked.append(self.path)
            time.sleep(imds.delay_s)
            if imds.failures:
                return self._answer(imds.failures.pop(0), b"")
            if self.headers.get("X-aws-ec2-metadata-token") != imds.token:
                return self._answer(401, b"")
            body = imds.said.get(self.path)
            return self._answer(404, b"") if body is None else self._answer(200, body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response_only(status)
            if imds.date:
                self.send_header("Date", imds.date)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    imds.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield imds
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
