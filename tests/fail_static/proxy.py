"""A way into the embedded cloud that breaks, one service at a time: between the real adapters and what they speak to.

It stands on loopback in threads of its own, looks at the service that a request is signed for, and passes everything
else on unchanged, byte for byte.
"""

from __future__ import annotations

import http.client
import re
import sys
import threading
from collections import Counter
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

SIGNED_FOR = re.compile(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection", "te", "trailer", "upgrade"}
XML = ("s3", "ec2", "sts")
THROTTLES = {"dynamodb": "ThrottlingException", "s3": "SlowDown", "lambda": "TooManyRequestsException"}
UPSTREAM_S = 900.0
FUNCTION = "exec-env/AWS_Lambda"  # in the user agent of everything that a function sends


class Mode(Enum):
    """How a service fails."""

    ERRORS = "errors"  # each request is answered with a 500
    THROTTLES = "throttles"
    SILENCE = "silence"  # each request is taken, and never answered nor applied
    LOST_REPLIES = "lost replies"  # each request is applied, and never answered


class Proxy:
    """Use it in a `with` block; `url` is where it stands, `upstream` where it leads to."""

    def __init__(self) -> None:
        self.upstream = ""
        self.harmed: Counter[str] = Counter()  # requests that it let fail, by service
        self._broken: dict[str, Mode] = {}
        self._functions_spared = False
        self._healed = {False: threading.Event(), True: threading.Event()}  # for functions: True
        self.mend()
        self._server = _Server(("127.0.0.1", 0), _door_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()
        self._server.shutdown()
        self._server.server_close()

    def breaks(self, service: str, mode: Mode) -> None:
        """From now on every request of a machine to this service fails."""
        self._broken[service] = mode
        self._healed[False].clear()

    def breaks_for_functions(self) -> None:
        """From now on what is broken for machines is broken for functions and the scheduler too."""
        self._healed[True].clear()

    def mend_for_functions(self) -> None:
        """The control plane is through again before any machine is."""
        self._healed[True].set()

    def mend(self) -> None:
        """Everything works again. Who waits for an answer meets a closed connection."""
        self._broken.clear()
        for healed in self._healed.values():
            healed.set()

    def mode(self, service: str, agent: str) -> Mode | None:
        """How this service fails at the moment for whoever has this user agent."""
        mode = None if self._healed[FUNCTION in agent].is_set() else self._broken.get(service)
        if mode is not None:
            self.harmed[service] += 1
        return mode

    def wait_until_mended(self, agent: str) -> None:
        """Return once everything works again for whoever has this user agent."""
        self._healed[FUNCTION in agent].wait()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no news here; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _door_of(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Door(_Door):
        way = proxy

    return Door


class _Door(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    way: Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the cloud has a log of its own."""

    def answer(self) -> None:
        """Pass the request on, or let it fail."""
        body = self._body()
        found = SIGNED_FOR.search(self.headers.get("Authorization", ""))
        service = found.group(1) if found else ""
        agent = self.headers.get("User-Agent", "")
        mode = self.way.mode(service, agent)
        if mode is Mode.SILENCE:
            self.way.wait_until_mended(agent)
            self.close_connection = True
        elif mode is Mode.ERRORS:
            self._refuse(service, 500, "InternalError" if service == "s3" else "InternalServerError")
        elif mode is Mode.THROTTLES:
            self._refuse(service, 503 if service == "s3" else 400, THROTTLES.get(service, "ThrottlingException"))
        else:
            self._pass_on(body, lose=mode is Mode.LOST_REPLIES)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _pass_on(self, body: bytes, lose: bool) -> None:
        try:
            answer, told = self._asked(body)
        except (OSError, http.client.HTTPException):  # the cloud ended, or closed a connection that it kept
            self.close_connection = True
            return
        if lose:
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    def _asked(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        if self._upstream is None:
            place = urlsplit(self.way.upstream)
            self._upstream = http.client.HTTPConnection(place.hostname or "", place.port, timeout=UPSTREAM_S)
        self._upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP and name.lower() != "content-length":
                self._upstream.putheader(name, value)
        self._upstream.putheader("Content-Length", str(len(body)))
        self._upstream.endheaders(body)
        answer = self._upstream.getresponse()
        return answer, answer.read()

    def _refuse(self, service: str, status: int, code: str) -> None:
        if service in XML:
            text = f"<Code>{code}</Code><Message>broken on purpose</Message>"
            body = (
                f"<Error>{text}</Error>" if service == "s3" else f"<R><Errors><Error>{text}</Error></Errors></R>"
            ).encode()
        else:
            body = f'{{"__type": "{code}", "message": "broken on purpose"}}'.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml" if service in XML else "application/x-amz-json-1.0")
        self.send_header("x-amzn-errortype", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
