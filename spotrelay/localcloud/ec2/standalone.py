"""The emulated EC2 by itself, over HTTP, with a small world in memory: for its own tests, and to try things out.

with Standalone(home) as cloud:
    boto3.client("ec2", **cloud.client_arguments())
"""

from __future__ import annotations

import base64
import logging
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from spotrelay.localcloud.ec2.service import ACCOUNT, Ec2

ROOT = f"arn:aws:iam::{ACCOUNT}:root"
ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/ec2/aws4_request")
_log = logging.getLogger(__name__)


class MemoryWorld:
    """A cloud of a few dictionaries; whatever EC2 says to it is kept."""

    def __init__(self) -> None:
        self.templates: dict[str, dict[str, dict[str, Any]]] = {}
        """by id, by version"""
        self.subnets: dict[str, dict[str, str]] = {}
        self.rights: dict[str, list[dict[str, Any]]] = {ROOT: [ALLOW_ALL]}
        """policies by caller"""
        self.environment: dict[str, str] = {}
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def add_template(self, name: str, user_data: str | bytes | None = None, **data: Any) -> str:
        """A launch template of one version; its id."""
        body: dict[str, Any] = {"ImageId": "ami-0123456789abcdef0", "InstanceType": "g5.xlarge", **data}
        if user_data is not None:
            text = user_data.encode() if isinstance(user_data, str) else user_data
            body["UserData"] = base64.b64encode(text).decode()
        self.templates[name] = {"1": body}
        return name

    def add_subnet(self, zone: str) -> str:
        """A subnet in a zone; its id."""
        name = f"subnet-{len(self.subnets):017x}"
        self.subnets[name] = {"SubnetId": name, "AvailabilityZone": zone, "VpcId": "vpc-00000000000000001"}
        return name

    def launch_template(self, id_or_name: str, version: str) -> dict[str, Any]:
        """Data of one version."""
        versions = self.templates[id_or_name]
        aliases = {"$Default": min(versions), "$Latest": max(versions)}
        return versions[aliases.get(version, version)]

    def subnet(self, subnet_id: str) -> Mapping[str, str]:
        """A subnet that was added."""
        return self.subnets[subnet_id]

    def emit(self, event: dict[str, Any]) -> None:
        """Keep an event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def events(self, instance_id: str = "") -> list[dict[str, Any]]:
        """The events so far, of one instance or of all."""
        with self._changed:
            return [e for e in self._events if not instance_id or e["detail"]["instance-id"] == instance_id]

    def credentials(self, instance_profile: str, instance_id: str) -> Mapping[str, Any]:
        """Made up, and different for each instance."""
        until = datetime.fromtimestamp(time.time() + 6 * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = instance_id[2:].upper()
        return {"AccessKeyId": f"ASIA{name}", "SecretAccessKey": name, "Token": name, "Expiration": until}

    def policies(self, caller: str) -> list[dict[str, Any]]:
        """What was granted."""
        return self.rights.get(caller, [])

    def instance_environment(self, instance_id: str) -> Mapping[str, str]:
        """The same for every instance."""
        return self.environment

    def profile_role(self, instance_profile: str) -> str:
        """The role is named after the profile; there is none called `missing`."""
        if instance_profile.endswith("missing"):
            raise KeyError(instance_profile)
        return f"arn:aws:iam::{ACCOUNT}:role/{instance_profile.rsplit('/', 1)[-1]}-role"


class Standalone:
    """An emulated EC2 behind a loopback port of its own. The access key says who calls; signatures are not checked."""

    def __init__(self, home: Path, time_scale: float = 0.01, world: MemoryWorld | None = None) -> None:
        self.world = world or MemoryWorld()
        self.ec2 = Ec2(self.world, home, time_scale)
        self.callers: dict[str, str] = {"AKIAROOT": ROOT}
        """ARN by access key"""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Standalone:
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def client_arguments(self, region: str = "us-east-1", access_key: str = "AKIAROOT") -> dict[str, Any]:
        """Keyword arguments for `boto3.client("ec2", …)`."""
        return {
            "endpoint_url": self.endpoint,
            "region_name": region,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": "unchecked",
        }

    def caller(self, name: str, *statements: dict[str, Any]) -> str:
        """Access key of a role with these rights and no others."""
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/session"
        self.world.rights[arn] = [{"Version": "2012-10-17", "Statement": list(statements)}]
        key = f"ASIA{name.upper()}"
        self.callers[key] = arn
        return key

    def close(self) -> None:
        """End the API, and every instance."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.ec2.close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def _handler(cloud: Standalone) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            found = _CREDENTIAL.search(self.headers.get("Authorization", ""))
            key, region = (found[1], found[2]) if found else ("", "us-east-1")
            parameters = dict(parse_qsl(body, keep_blank_values=True))
            caller = cloud.callers.get(key, f"arn:aws:iam::{ACCOUNT}:user/unknown")
            status, text = cloud.ec2.handle(parameters.get("Action", ""), parameters, caller, region)
            self.send_response(status)
            self.send_header("Content-Type", "text/xml;charset=UTF-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, text: str, *values: Any) -> None:
            _log.debug(text, *values)

    return Handler
