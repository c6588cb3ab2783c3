"""What a decision has to know besides the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from spotrelay.core.budget import Budget
from spotrelay.core.clockwork import Timings
from spotrelay.core.experience import Experience
from spotrelay.core.placement import Pool
from spotrelay.core.scoring import Transfer


@dataclass(frozen=True)
class Site:
    """Where the stack can launch, how long it waits, and what was asked because a launch is due."""

    zones: tuple[tuple[str, str], ...] = ()  # (region, zone) of every subnet of the stack
    timings: Timings = field(default_factory=Timings)
    launches_allowed: bool = True  # the kill switch, asked when a launch is due
    prices: dict[Pool, float] | None = None  # dollars an hour; asked when the run or the account has a ceiling
    experience: Experience | None = None  # of the account, asked when a launch is due; None: nothing is known
    home: str = ""  # region of the bucket; empty: fetching a checkpoint costs nothing anywhere
    replicas: tuple[tuple[str, str], ...] = ()  # region and bucket of each copy of it
    transfer: Transfer = field(default_factory=Transfer)  # of a checkpoint into another region
    budget: Budget | None = None  # of the account; None: it has no ceiling
    own: tuple[Pool, ...] = ()  # pools of hosts of one's own that take runs; read for runs that ask for them
