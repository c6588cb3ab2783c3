"""Why a demo ends early."""

from __future__ import annotations

from spotrelay.core.errors import SpotrelayError


class DemoFailed(SpotrelayError):
    """The demo could not be played to its end. The text says what was waited for and what was seen instead."""


class Told(BaseException):
    """A signal asked the demo to end; everything that it started is ended on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum
