"""Every client comes from here: short timeouts, few retries, one client per service and region.

boto3 makes them where it is installed. On a machine that trains there may be botocore alone, the program's own or the
one that the agent brings: a boto3 of ours above a botocore of theirs would not fit.
"""

from __future__ import annotations

import threading
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.session import Session

from spotrelay.core.errors import Unavailable

try:
    import boto3
except ImportError:
    boto3 = None  # type: ignore[assignment]

CONNECT_S = 3  # seconds to open a connection
READ_S = 20  # seconds without a byte of the answer
NEARBY_READ_S = 5  # the same, of what is asked only because it may be faster
LAUNCH_READ_S = 20  # an instant fleet answers within seconds; a later answer is got by sending it again
METADATA_S = 2  # seconds to wait for credentials from the metadata service
ATTEMPTS = 3  # of one call, the first included


class Clients:
    """Makes and keeps clients. Thread-safe; opens nothing before the first client is asked for.

    Args:
        read_s: seconds to wait for the next byte of an answer.
        attempts: of one call, the first included. With more than one, the SDK draws its pauses from Python's global
            random generator; a process whose generators belong to somebody else takes one, and tries again itself.
    """

    def __init__(
        self, region: str, session: Session | None = None, attempts: int = ATTEMPTS, read_s: int = READ_S
    ) -> None:
        self.region = region
        self._attempts = attempts
        self._read_s = read_s
        self._session = session
        self._make: Any = None  # untyped: the service is a variable
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str, bool], Any] = {}

    def client(self, service: str, region: str | None = None) -> Any:
        """The client of a service, in the home region unless another is named.

        Raises:
            Unavailable: there are no credentials; a client made without them would never find any.
        """
        return self._client(service, region or self.region, launching=False)

    def launcher(self, region: str) -> Any:
        """An EC2 client that sends every request exactly once.

        EC2 says "no capacity" with a 5xx, which the SDK would retry silently while the notice runs.
        """
        return self._client("ec2", region, launching=True)

    def once(self, service: str) -> Any:
        """A client in the home region that sends every request exactly once."""
        return self._client(service, self.region, launching=True)

    def _client(self, service: str, region: str, launching: bool) -> Any:
        key = (service, region, launching)
        with self._lock:  # making clients is not thread-safe in botocore; using them is
            if key not in self._made:
                self._make = self._make or self._signed_in()
                how = _config(1, LAUNCH_READ_S) if launching else _config(self._attempts, self._read_s)
                self._made[key] = self._make(service, region_name=region, config=how)
            return self._made[key]

    def _signed_in(self) -> Any:
        """What makes clients, once: a session of boto3 is put above a session of botocore's one time only."""
        session = self._session or _session()
        if session.get_credentials() is None:
            raise Unavailable(
                "no AWS credentials were found: log in (aws sso login, aws configure), "
                "or check the instance profile if this is an EC2 machine"
            )
        return session.create_client if boto3 is None else boto3.Session(botocore_session=session).client


def _config(attempts: int, read_s: int) -> Config:
    return Config(
        connect_timeout=CONNECT_S,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=32,
        user_agent_extra="spotrelay",
        # Bodies carry S3's own checksum; SHA-256 of them as well would take longer than sending them.
        s3={"payload_signing_enabled": False},
    )


def _session() -> Session:
    core = botocore.session.get_session()
    core.set_config_variable("metadata_service_timeout", METADATA_S)
    core.set_config_variable("metadata_service_num_attempts", 1)
    return core


def nearby(region: str) -> Clients:
    """Clients for what may be asked elsewhere just as well: one try, and little patience."""
    return Clients(region, attempts=1, read_s=NEARBY_READ_S)
