"""The Lambda Runtime API, as far as AWS's own runtime client asks for it, and a function behind it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


class FunctionFailed(AssertionError):
    """The function raised, or never came up; the text is what the runtime client reported."""


class Function:
    """One Lambda function in a process of its own, invoked one event at a time."""

    def __init__(self, python: Sequence[str], task_root: Path, handler: str, environment: Mapping[str, str]) -> None:
        self._events: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._events, self._answers))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._command = [*python, "-m", "awslambdaric", handler]
        self._root = task_root
        self._environment = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "LAMBDA_TASK_ROOT": str(task_root),
            "AWS_LAMBDA_FUNCTION_NAME": handler.split(".")[1],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/test",
            "AWS_LAMBDA_LOG_STREAM_NAME": "test",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self._output: list[str] = []
        self._more = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Function:
        self._thread.start()
        self._process = subprocess.Popen(
            self._command,
            cwd=self._root,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join(timeout=5)
        self._events.put(None)
        self._server.shutdown()
        self._server.server_close()

    def invoke(self, event: Any, timeout_s: float = 60) -> Any:
        """The function's answer to one event.

        Raises:
            FunctionFailed: with what the runtime client reported.
        """
        request_id = str(uuid.uuid4())
        self._events.put((request_id, json.dumps(event).encode()))
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                kind, body = self._answers.get(timeout=0.2)
                break
            except queue.Empty:
                dead = self._process is not None and self._process.poll() is not None
                if dead or time.monotonic() > deadline:
                    raise FunctionFailed(f"no answer; the function wrote:\n{self.output}") from None
        if kind != "response":
            raise FunctionFailed(f"{body.decode()}\nthe function wrote:\n{self.output}")
        return json.loads(body)

    @property
    def output(self) -> str:
        """Everything that the function wrote so far."""
        return "".join(self._output)

    def wrote(self, text: str, within_s: float = 20.0) -> None:
        """Fails unless the function has written this; what it writes arrives a moment after its answer."""
        deadline = time.monotonic() + within_s
        with self._more:
            while text not in self.output:
                left = deadline - time.monotonic()
                assert left > 0, f"the function never wrote {text!r}; it wrote:\n{self.output}"
                self._more.wait(left)

    def lines(self) -> list[dict[str, Any]]:
        """Its lines that are JSON objects: log lines and metrics."""
        found = []
        for line in self.output.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._more:
                self._output.append(line)
                self._more.notify_all()


def _handler(
    events: queue.Queue[tuple[str, bytes] | None], answers: queue.Queue[tuple[str, bytes]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every invocation waits 40 ms for an acknowledgement
        wbufsize = -1

        def do_GET(self) -> None:  # …/runtime/invocation/next
            item = events.get()
            if item is None:
                self._reply(410, b"")
                return
            request_id, body = item
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 60_000))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:000000000000:function:f")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:  # …/invocation/<id>/response, …/error, …/init/error
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.put((self.path.rsplit("/", 1)[1], body))
            self._reply(202, b"{}")

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
