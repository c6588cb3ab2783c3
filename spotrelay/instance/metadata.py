"""The instance metadata service, version 2: whether EC2 is taking this machine back."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from spotrelay.core.errors import Unavailable

ADDRESS = "http://169.254.169.254"
TOKEN_LIFE_S = 21600
ANSWER_WITHIN_S = 2.0


@dataclass(frozen=True)
class Reclaim:
    """EC2 has said that it takes this machine."""

    action: str  # terminate, stop or hibernate
    deadline: datetime | None  # UTC; None when what EC2 wrote is no time


class Metadata:
    """One machine's view of itself. Opens no connection before it is asked."""

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address.rstrip("/")
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""

    def reclaim(self) -> Reclaim | None:
        """What `spot/instance-action` says; None when EC2 has announced nothing.

        Raises:
            Unavailable: no clear answer, which is neither a yes nor a no.
        """
        text = self._read("/latest/meta-data/spot/instance-action")
        return None if text is None else parse_reclaim(text)

    def address(self) -> str:
        """The machine's private address.

        Raises:
            Unavailable: no clear answer.
        """
        text = self._read("/latest/meta-data/local-ipv4")
        if not text:
            raise Unavailable("the metadata service tells no private address")
        return text.strip()

    def _read(self, path: str) -> str | None:
        for fresh in (False, True):
            if fresh or not self._token:
                life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)}
                _, self._token = self._ask("PUT", "/latest/api/token", life)
            status, text = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status == http.client.NOT_FOUND:
                return None
            if status == http.client.OK:
                return text
        raise Unavailable(f"the metadata service refuses its own token for {path}")

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        request = urllib.request.Request(self._address + path, headers=dict(headers), method=method)
        try:
            with self._direct.open(request, timeout=ANSWER_WITHIN_S) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                if method == "GET" and error.code in (http.client.NOT_FOUND, http.client.UNAUTHORIZED):
                    return error.code, ""
            raise Unavailable(f"the metadata service answered {method} {path} with HTTP {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the metadata service does not answer {method} {path}: {error}") from error


def parse_reclaim(text: str) -> Reclaim:
    """The announcement in this text; whatever it says, EC2 has made one."""
    try:
        value = json.loads(text)
    except ValueError:
        return Reclaim("unknown", None)
    if not isinstance(value, dict):
        return Reclaim("unknown", None)
    try:
        deadline = datetime.fromisoformat(str(value.get("time")).replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return Reclaim(str(value.get("action")), None)
    return Reclaim(str(value.get("action")), deadline)
