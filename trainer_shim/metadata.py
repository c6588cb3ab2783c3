"""The machine's metadata service, version 2: whether EC2 is about to take the machine back."""

from __future__ import annotations

import email.utils
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

TIMEOUT_S = 2.0
TOKEN_LIFE_S = 21600
NOTICE = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class NoMetadata(Exception):
    """The service does not answer at present. Look again later."""


@dataclass(frozen=True)
class Action:
    """What EC2 is going to do to the machine."""

    action: str  # terminate, stop or hibernate
    left: timedelta  # until then, by the service's own clock where it shows one
    deadline: datetime  # UTC, as EC2 wrote it


class Metadata:
    """Asks with a session token, renews it when it has expired, never waits long."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._token = ""
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def action(self, lead: timedelta) -> Action | None:
        """The interruption that was announced, if one was.

        Args:
            lead: the longest that a notice can be ahead; a clock that is wrong cannot stretch it.

        Raises:
            NoMetadata: nobody answers, or nothing that makes sense.
        """
        answer = self._ask(NOTICE)
        if answer is None:
            return None
        body, date = answer
        try:
            deadline = datetime.fromisoformat(str(body["time"])).astimezone(UTC)
            action = str(body["action"])
        except (KeyError, TypeError, ValueError) as error:
            raise NoMetadata(f"the announcement of an interruption is unreadable: {body!r}") from error
        now = date or datetime.now(UTC)
        left = timedelta(0) if action == "hibernate" else deadline - now
        if not timedelta(0) <= left <= lead:  # an old announcement, or a clock that is wrong
            left = timedelta(0) if action == "hibernate" else min(max(left, lead / 2), lead)
        return Action(action, left, deadline)

    def rebalance(self) -> str | None:
        """When the machine was recommended to be replaced, if it was.

        Raises:
            NoMetadata: nobody answers.
        """
        answer = self._ask(REBALANCE)
        return None if answer is None else str(answer[0].get("noticeTime", ""))

    def _ask(self, path: str, again: bool = True) -> tuple[dict[str, Any], datetime | None] | None:
        if not self._token:
            self._token = self._request("PUT", "/latest/api/token", {_TTL: str(TOKEN_LIFE_S)})[0].decode()
        try:
            body, date = self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            if error.code == 401 and again:
                self._token = ""
                return self._ask(path, again=False)
            raise NoMetadata(f"{path}: status {error.code}") from error
        try:
            value = json.loads(body)
        except ValueError as error:
            raise NoMetadata(f"{path}: {body[:80]!r}") from error
        if not isinstance(value, dict):
            raise NoMetadata(f"{path}: {body[:80]!r}")
        return value, date

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[bytes, datetime | None]:
        request = urllib.request.Request(self._endpoint + path, method=method, headers=headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return answer.read(65536), _date(answer.headers.get("Date"))
        except urllib.error.HTTPError as error:
            if method == "GET":
                raise
            error.close()
            raise NoMetadata(f"no token: status {error.code}") from error
        except (OSError, ValueError) as error:
            raise NoMetadata(f"{path}: {error}") from error


_TTL = "X-aws-ec2-metadata-token-ttl-seconds"


def _date(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).astimezone(UTC)
    except (TypeError, ValueError):
        return None


def monotonic_deadline(left: timedelta) -> float:
    """The monotonic time at which this much time has passed."""
    return time.monotonic() + max(left.total_seconds(), 0.0)
