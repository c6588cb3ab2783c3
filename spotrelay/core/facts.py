"""Everything that can be learnt about a run. A fact is recorded first and decided upon after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spotrelay.core.notice import InstanceState, InterruptionNotice, RebalanceRecommendation, StateChange
from spotrelay.core.ports import LaunchAnswer, Machine
from spotrelay.core.retention import Upkeep
from spotrelay.core.run import PAUSE


@dataclass(frozen=True)
class LaunchAnswered:
    """EC2 answered a launch, with a machine or with refusals."""

    launch: int
    answer: LaunchAnswer
    price: float | None = None  # dollars an hour of the machine's pool, where known


@dataclass(frozen=True)
class Priced:
    """What a machine costs, where that was learnt after its launch was recorded."""

    instance_id: str
    price: float  # dollars an hour


@dataclass(frozen=True)
class Paid:
    """An attempt has its time set aside in the account's books."""

    generation: int
    until: datetime


@dataclass(frozen=True)
class MoneyRefused:
    """The account's budget of the day has no room for an attempt's next piece of time."""

    generation: int
    why: str


@dataclass(frozen=True)
class MoneyBack:
    """The account's books have room again for a run that waits for it: it may ask at once."""


@dataclass(frozen=True)
class LaunchUnclear:
    """A launch was sent and its outcome is not known, or it could not stand in line: the same request goes again."""

    launch: int
    why: str


@dataclass(frozen=True)
class LaunchPostponed:
    """A launch was not sent, or EC2 refused it for its rate: it made nothing, and stands in line now."""

    launch: int
    sent: int  # times that its sending was begun before
    until: datetime
    in_turn: bool  # False: the line was too long to stand in; at `until` it is asked again
    why: str


@dataclass(frozen=True)
class LaunchAbandoned:
    """No machine of this launch exists, and nobody will send it any more."""

    launch: int


@dataclass(frozen=True)
class MachineFound:
    """EC2 shows a machine with the tags of one of our launches."""

    machine: Machine
    others: tuple[Machine, ...] = ()  # the further ones, of the launch of a gang


@dataclass(frozen=True)
class Observed:
    """EC2 was asked and answered, or a host was tried."""

    states: tuple[tuple[str, InstanceState], ...]
    unreached: tuple[str, ...] = ()  # machines of one's own whose host gave no answer


@dataclass(frozen=True)
class TerminateAsked:
    """We asked EC2 to end this machine."""

    instance_id: str


@dataclass(frozen=True)
class Verified:
    """A checkpoint was compared with S3."""

    generation: int
    save: int
    ok: bool
    problem: str = ""
    key: str = ""  # of the shard that is damaged, where a reader named it: every checkpoint with it is condemned
    version_id: str = ""  # of that shard


@dataclass(frozen=True)
class VerificationPostponed:
    """S3 gave no answer that a verdict could be built on."""

    why: str


@dataclass(frozen=True)
class Compared:
    """A checkpoint was looked for in a replica of the bucket."""

    region: str
    checkpoint: str  # id
    complete: bool
    problem: str = ""  # what was not there, or why nobody knows


@dataclass(frozen=True)
class Collected:
    """The bucket was looked through for what no checkpoint names any more."""

    upkeep: Upkeep  # how far that has come
    retired: tuple[str, ...] = ()  # ids of checkpoints that may not be used from now on
    forgotten: tuple[str, ...] = ()  # ids of checkpoints of which nothing is left
    deleted: int = 0  # objects


@dataclass(frozen=True)
class CollectionPostponed:
    """S3 or the table gave no answer: nothing is deleted on a guess."""

    why: str


@dataclass(frozen=True)
class DrainAsked:
    """We asked an attempt to save, to give the lease back and to end."""

    generation: int
    by: str = PAUSE  # one of `LETTING_GO`
    why: str = ""


@dataclass(frozen=True)
class StacksAsked:
    """We asked an attempt that gets nowhere to write the stacks of its threads."""

    generation: int


@dataclass(frozen=True)
class PauseRequested:
    """A person wants the run to rest."""

    why: str


@dataclass(frozen=True)
class ResumeRequested:
    """A person wants a paused run to go on."""


@dataclass(frozen=True)
class RetryRequested:
    """A person wants a run that has ended to open again."""

    why: str


@dataclass(frozen=True)
class CancelRequested:
    """A person wants the run to end."""

    why: str


Fact = (
    InterruptionNotice
    | RebalanceRecommendation
    | StateChange
    | LaunchAnswered
    | Priced
    | Paid
    | MoneyRefused
    | MoneyBack
    | LaunchUnclear
    | LaunchPostponed
    | LaunchAbandoned
    | MachineFound
    | Observed
    | TerminateAsked
    | Verified
    | VerificationPostponed
    | Compared
    | Collected
    | CollectionPostponed
    | CancelRequested
    | DrainAsked
    | PauseRequested
    | ResumeRequested
    | RetryRequested
    | StacksAsked
)
