"""Why an acceptance test ends early. The teardown follows in any case."""

from __future__ import annotations

from spotrelay.core.errors import SpotrelayError


class AcceptanceFailed(SpotrelayError):
    """The test could not be played to its end; the text says what was waited for and what was seen."""


class CeilingReached(AcceptanceFailed):
    """The machines have cost as much as was allowed."""


class NotReady(SpotrelayError):
    """Something that the test stands on is missing; nothing was made."""


class Told(BaseException):
    """A signal asked for the end; the teardown comes first."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum
