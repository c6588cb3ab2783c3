"""Calls the target of a schedule as EventBridge Scheduler would: through Lambda's API, with the schedule's role."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config

from spotrelay.localcloud import emulator
from spotrelay.localcloud.ticker import Ticker

_ROLE_SESSION_S = 3600.0


class UnsupportedTarget(Exception):
    """The schedule's target is not a Lambda function."""


class TargetFailed(Exception):
    """The function ended with an error; the message is what it reported."""


class Schedules:
    """The schedules that this cloud runs at a pace of its own."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._tickers: dict[str, Ticker] = {}
        self._lock = threading.Lock()

    def run(self, group: str, name: str, every_s: float) -> None:
        """Call a schedule's target every `every_s` seconds, at once instead of as it says itself.

        Raises:
            UnknownResource: there is no such schedule.
            UnsupportedTarget: its target is no Lambda function.
        """
        target = emulator.schedule(group, name)["Target"]
        if ":lambda:" not in target["Arn"]:
            raise UnsupportedTarget(f"schedule {name} calls {target['Arn']}; only Lambda functions can be paced here")
        with self._lock:
            replaced = self._tickers.pop(name, None)
            if replaced is not None:
                replaced.stop()
            self._tickers[name] = Ticker(name, every_s, lambda: self._call(target))

    def described(self) -> list[dict[str, Any]]:
        """State of every paced schedule."""
        with self._lock:
            return [ticker.described() for ticker in self._tickers.values()]

    def close(self) -> None:
        """Stop all of them."""
        with self._lock:
            for ticker in self._tickers.values():
                ticker.stop()
            self._tickers.clear()

    def _call(self, target: dict[str, Any]) -> None:
        region = target["Arn"].split(":")[3]
        role = target["RoleArn"].rsplit("/", 1)[-1]
        session = emulator.open_session(role, "scheduler", _ROLE_SESSION_S)
        client = boto3.client(
            "lambda",
            region_name=region,
            endpoint_url=self._endpoint,
            aws_access_key_id=session["AccessKeyId"],
            aws_secret_access_key=session["SecretAccessKey"],
            aws_session_token=session["Token"],
            config=Config(read_timeout=900, retries={"max_attempts": 1, "mode": "standard"}),
        )
        answer = client.invoke(FunctionName=target["Arn"], Payload=str(target.get("Input") or "{}").encode())
        if answer.get("FunctionError"):
            raise TargetFailed(answer["Payload"].read().decode("utf-8", "replace"))
