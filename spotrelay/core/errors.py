"""Every error that the core and its ports raise. Each class says what its catcher does next."""

from __future__ import annotations

from collections.abc import Sequence


class SpotrelayError(Exception):
    """Base of all of them. Its text is for a person: what happened, to which run, what to do."""


class InvalidInput(SpotrelayError):
    """A value from outside is wrong. Tell its author; nothing was changed."""


class UnknownRun(SpotrelayError):
    """No run has this id. Drop the event, or tell the person who typed the id."""


class IllegalTransition(SpotrelayError):
    """A move that the table does not allow. A defect: nothing was changed, report it."""


class LostRace(SpotrelayError):
    """Somebody wrote first. Read again and decide again, at once."""


class AlreadyExists(SpotrelayError):
    """A create-only write met an existing item. Read it: it may be your own earlier try."""


class Contention(SpotrelayError):
    """A transaction met another one, or a throttle. Nothing was written: try again, jittered."""


class OutcomeUnknown(SpotrelayError):
    """The request may or may not have taken effect. Read back before anything else."""


class Unavailable(SpotrelayError):
    """A service does not answer. Keep what you have, try again later; never read it as a no."""


class OutOfReach(Unavailable):
    """A host of one's own was tried and gives no answer. Its machine is unknown, never gone."""


class Fenced(SpotrelayError):
    """This attempt has been replaced. Stop writing: no commit of it will ever succeed again."""


class LeaseHeld(SpotrelayError):
    """An earlier attempt still holds the lease. Wait and ask again."""


class Missing(SpotrelayError):
    """An object or table that should be there is not. Fall back one checkpoint, or run `doctor`."""


class Damaged(SpotrelayError):
    """Bytes differ from what the manifest says. Condemn the checkpoint, fall back to the one before."""

    def __init__(self, text: str, key: str = "", version: str = "") -> None:
        super().__init__(text)
        self.key = key  # of the damaged object, where it is known
        self.version = version


class Retired(SpotrelayError):
    """What a save builds on was retired or condemned. Nothing was committed: save whole."""


class UnknownFormat(SpotrelayError):
    """Written by a newer version. Upgrade this side; what is there was not touched."""


def one_of(errors: Sequence[SpotrelayError]) -> SpotrelayError:
    """One error for several places that were asked; what all of them say, it says too."""
    if len(errors) == 1:
        return errors[0]
    alike = (k for k in (Contention, OutOfReach) if all(isinstance(error, k) for error in errors))
    kind = next(alike, Unavailable)
    one = kind("; ".join(dict.fromkeys(str(error) for error in errors)))
    one.__cause__ = errors[0]
    return one
