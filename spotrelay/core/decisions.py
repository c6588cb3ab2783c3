"""The answers that `spotrelay.core.decide` may give. Each says what to do next, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spotrelay.core.checkpoint import Checkpoint
from spotrelay.core.placement import Rung
from spotrelay.core.run import PAUSE, Intent, RunStatus


@dataclass(frozen=True)
class Fence:
    """Shut every generation below `floor` out of the lease."""

    floor: int
    why: str


@dataclass(frozen=True)
class Verify:
    """Compare these checkpoints with S3, newest first, until one is whole."""

    checkpoints: tuple[Checkpoint, ...]
    why: str


@dataclass(frozen=True)
class Recheck:
    """Compare each of these checkpoints with S3 again, newest first."""

    checkpoints: tuple[Checkpoint, ...]
    why: str


@dataclass(frozen=True)
class Compare:
    """Look whether these replicas of the bucket have the whole of a checkpoint."""

    checkpoint: Checkpoint
    replicas: tuple[tuple[str, str], ...]  # region and bucket
    why: str


@dataclass(frozen=True)
class Collect:
    """Retire what need not be kept, and delete what nothing names any more."""

    why: str


@dataclass(frozen=True)
class Reserve:
    """Write down a launch before it is asked for."""

    rung: Rung
    generation: int
    launch: int
    why: str
    rate: float | None = None  # dollars an hour of the dearest pool, where that is known
    transfer: float = 0.0  # dollars for fetching the checkpoint from another region


@dataclass(frozen=True)
class Pay:
    """Set the next piece of a machine's time aside in the account's books."""

    generation: int
    why: str


@dataclass(frozen=True)
class Send:
    """Send the launch that was written down, the very same request each time."""

    intent: Intent
    why: str


@dataclass(frozen=True)
class Resolve:
    """Find out by its tags whether a launch that nobody wants any more made a machine."""

    intent: Intent
    why: str


@dataclass(frozen=True)
class Observe:
    """Ask EC2 what became of these machines."""

    instance_ids: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Terminate:
    """End this machine."""

    instance_id: str
    why: str
    others: tuple[str, ...] = ()  # further ones of the same attempt, for the same reason

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """All of them."""
        return (self.instance_id, *self.others)


@dataclass(frozen=True)
class Drain:
    """Ask an attempt to save, to give the lease back and to end."""

    generation: int
    why: str
    by: str = PAUSE  # one of `LETTING_GO`


@dataclass(frozen=True)
class AskStacks:
    """Ask an attempt that gets nowhere for the stacks of its threads."""

    generation: int
    why: str


@dataclass(frozen=True)
class Conclude:
    """The run is over with this outcome."""

    outcome: RunStatus
    why: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime
    why: str


@dataclass(frozen=True)
class Rest:
    """Nothing to do ever again."""

    why: str


Decision = (
    Fence
    | Verify
    | Recheck
    | Compare
    | Reserve
    | Pay
    | Send
    | Resolve
    | Observe
    | Terminate
    | Drain
    | AskStacks
    | Collect
    | Conclude
    | Wait
    | Rest
)
