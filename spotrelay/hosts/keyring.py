"""The private keys of hosts, where their references say: in SSM or in Secrets Manager. Never logged, never stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read

KEPT_S = 300.0  # a key that was changed is believed this long


class Keyring:
    """Reads keys, and keeps each for a while.

    Args:
        client: gives the client of a service, when it is needed.
    """

    def __init__(self, client: Callable[[str], Any], now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._kept: dict[str, tuple[float, str]] = {}

    def key_of(self, reference: str) -> str:
        """The private key behind a reference.

        Raises:
            Missing: there is none.
            Unavailable, Contention: it cannot be read at present.
        """
        read_at, key = self._kept.get(reference, (0.0, ""))
        if not key or self._now() > read_at + KEPT_S:
            key = self._read(reference)
            self._kept[reference] = (self._now(), key)
        return key

    def _read(self, reference: str) -> str:
        kind, _, name = reference.partition(":")
        try:
            if kind == "ssm":
                answer = self._client("ssm").get_parameter(Name=name, WithDecryption=True)
                return str(answer["Parameter"]["Value"])
            return str(self._client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])
        except FAILURES as error:
            raise failed_read(error, f"reading {reference}", "there is none in the home region") from error
