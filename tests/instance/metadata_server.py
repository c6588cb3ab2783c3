"""An IMDSv2 of our own for one machine, written from the documentation; it asks for tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE = "spotrelay-machine"
SECRET_KEY = "wJalrXUtnFEMI-secret-key-of-a-test"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjE-session-token-of-a-test"
TOKEN = "a-metadata-token"


class FakeMetadata:
    """What the service answers; change it while the machine runs."""

    def __init__(self, run: str = "run-1", generation: str = "1", instance: str = "i-0123456789abcdef0") -> None:
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIATESTTESTTESTTEST",
            "SecretAccessKey": SECRET_KEY,
            "Token": SESSION_TOKEN,
            "LastUpdated": "2030-01-01T00:00:00Z",
            "Expiration": "2035-01-01T00:00:00Z",
        }
        self.paths = {
            "instance-id": instance,
            "placement/region": "us-east-1",
            "tags/instance/spotrelay:run": run,
            "tags/instance/spotrelay:generation": generation,
            "tags/instance/spotrelay:launch": "1",
            "iam/security-credentials/": ROLE,
            f"iam/security-credentials/{ROLE}": json.dumps(credentials),
        }
        self.first_answers: list[int] = []  # HTTP statuses given before anything else; 0 drops the connection
        self.asked: list[str] = []
        self.address = ""

    def announce_reclaim(self) -> None:
        """EC2 takes this machine."""
        self.paths["spot/instance-action"] = json.dumps({"action": "terminate", "time": "2035-01-01T00:02:00Z"})


@contextmanager
def serving(metadata: FakeMetadata) -> Iterator[FakeMetadata]:
    """Serve on a free loopback port while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            life = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self._answer(*((200, TOKEN) if self.path == "/latest/api/token" and life else (400, "")))

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                return self._answer(401, "")
            path = self.path.removeprefix("/latest/meta-data/").removeprefix("/latest/dynamic/")
            text = metadata.paths.get(path)
            return self._answer(*((404, "") if text is None else (200, text)))

        def _answer(self, status: int, text: str) -> None:
            metadata.asked.append(f"{self.command} {self.path}")
            if metadata.first_answers:
                status, text = metadata.first_answers.pop(0), ""
            if status == 0:
                self.close_connection = True
                return
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    metadata.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield metadata
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
