"""Exit codes of every command, and which error means which."""

from __future__ import annotations

from spotrelay.core.errors import (
    AlreadyExists,
    Contention,
    InvalidInput,
    LostRace,
    Missing,
    OutcomeUnknown,
    SpotrelayError,
    Unavailable,
    UnknownFormat,
    UnknownRun,
)

OK = 0
FAILED = 1  # the run failed or was cancelled, or a check of `doctor` or `demo` failed
USAGE = 2  # an option, the spec or the code directory is wrong; nothing was sent
UNKNOWN_RUN = 3
NO_STACK = 4  # no credentials, no stack, no table
REFUSED = 5  # the run has ended already, does not stand where the command needs it, or its id is taken
UNAVAILABLE = 6  # AWS did not answer; nothing is known to be wrong, try again
INTERRUPTED = 130  # Ctrl-C


class AlreadyEnded(SpotrelayError):
    """The run has a final status, which nothing changes any more. Tell the person."""


class Refused(SpotrelayError):
    """What was wished of the run is not possible where it stands. Nothing was changed: tell the person."""


class NotReady(SpotrelayError):
    """What the command stands on is not there: credentials, a stack, a built assembly."""


_CODES: tuple[tuple[type[SpotrelayError], int], ...] = (
    (AlreadyEnded, REFUSED),
    (AlreadyExists, REFUSED),
    (Refused, REFUSED),
    (NotReady, NO_STACK),
    (Missing, NO_STACK),
    (UnknownRun, UNKNOWN_RUN),
    (InvalidInput, USAGE),
    (UnknownFormat, USAGE),
    (LostRace, UNAVAILABLE),
    (Contention, UNAVAILABLE),
    (OutcomeUnknown, UNAVAILABLE),
    (Unavailable, UNAVAILABLE),
)


def exit_code(error: SpotrelayError) -> int:
    """The exit code that tells a script what kind of error this was."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
