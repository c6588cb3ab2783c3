"""What EC2, an instance or a person tells us about a run. Hints: each becomes a fact on the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from spotrelay.core.errors import InvalidInput

NOTICE_LEAD = timedelta(minutes=2)
INSTANCE_ID = re.compile(r"^(i-([0-9a-f]{8}|[0-9a-f]{17})|h-[0-9a-f]{17})\Z")  # EC2's, and that of a host's machine


class NoticeSource(Enum):
    """Who said it first."""

    EVENTBRIDGE = "eventbridge"
    METADATA = "metadata"
    CAPACITY_RESERVATION = "capacity-reservation"
    DRAIN = "drain"  # a person wants its host empty


class InstanceState(Enum):
    """EC2's instance states, and GONE for one that EC2 no longer knows."""

    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATED = "terminated"
    GONE = "gone"

    @property
    def is_over(self) -> bool:
        """Whether the machine no longer runs our process, or is about to stop running it for good."""
        return self not in (InstanceState.PENDING, InstanceState.RUNNING)


@dataclass(frozen=True)
class InterruptionNotice:
    """EC2 takes the instance back at `deadline`."""

    instance_id: str
    action: str  # terminate, stop or hibernate; hibernation begins at once
    deadline: datetime  # UTC; EC2's own time where it gave one, else arrival plus two minutes
    source: NoticeSource


@dataclass(frozen=True)
class RebalanceRecommendation:
    """The instance is at elevated risk. A chance to checkpoint, never a kill."""

    instance_id: str


@dataclass(frozen=True)
class StateChange:
    """The instance went into this state, as an event or an observation says."""

    instance_id: str
    state: InstanceState


def checked_instance_id(text: str) -> str:
    """The id without surrounding space.

    Raises:
        InvalidInput: it is no EC2 instance id; quarantine the event that carries it.
    """
    candidate = text.strip() if isinstance(text, str) else ""
    if not INSTANCE_ID.match(candidate):
        raise InvalidInput(
            f"{text!r} is no EC2 instance id (i- and 8 or 17 hexadecimal digits, or h- and 17 on a host)"
        )
    return candidate
