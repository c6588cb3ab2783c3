"""The kill switch: one SSM parameter. Only a plain "on" allows a launch."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.core.errors import Unavailable

ON = "on"
OFF = "off"


class SsmSwitch:
    """A `Switch` that fails closed: what cannot be read allows nothing, and is asked again later.

    Args:
        keep: how long an answer is believed; SSM takes only 40 reads a second, a storm needs more.
    """

    def __init__(self, client: Any, parameter: str, keep: timedelta = timedelta(seconds=5)) -> None:
        self._client = client
        self._parameter = parameter
        self._keep_s = keep.total_seconds()
        self._lock = threading.Lock()
        self._known: tuple[float, bool] | None = None  # monotonic time of the reading, what it said

    def launches_allowed(self) -> bool:
        """Whether anybody may launch at this moment.

        Raises:
            Unavailable: the parameter cannot be read, or is not there; launch nothing.
        """
        with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[0] >= self._keep_s:
                self._known = (now, self._read() == ON)
            return self._known[1]

    def turn(self, on: bool) -> None:
        """Write the parameter; running instances are not touched."""
        doing = f"writing the launch switch {self._parameter}"
        try:
            self._client.put_parameter(Name=self._parameter, Value=ON if on else OFF, Type="String", Overwrite=True)
        except FAILURES as error:
            raise failed_read(error, doing) from error
        with self._lock:
            self._known = None

    def _read(self) -> str:
        doing = f"reading the launch switch {self._parameter}"
        try:
            answer = self._client.get_parameter(Name=self._parameter)
        except FAILURES as error:
            told = failed_read(error, doing, "it is not there; run `spotrelay doctor`")
            raise Unavailable(f"{told}. Nothing is launched meanwhile") from error
        return str(answer["Parameter"]["Value"]).strip().lower()
