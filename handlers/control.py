"""Everything that a function works with, built once and passed along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from handlers.telemetry import Telemetry
from spotrelay.core.budget import Books
from spotrelay.core.ports import (
    Clock,
    ExperienceStore,
    HostStore,
    LaunchLine,
    Machines,
    ObjectStore,
    PlacementScores,
    Publisher,
    RunStore,
    Switch,
)
from spotrelay.core.site import Site


class RunsQueue(Protocol):
    """The queue in front of the function that answers for runs."""

    def send(self, run_ids: Iterable[str], after: timedelta = timedelta(0)) -> None:
        """Put one message `{"run_id": …}` there for each, to be seen after this time; ten go in one call.

        Raises:
            Unavailable: not all of them are there; sending all again is harmless.
        """
        ...


class Keeper(Protocol):
    """Who sees to the machines on hosts of one's own."""

    def tend(self) -> int:
        """Renew the rights of those whose attempts go on, before they end; how many.

        Raises:
            Unavailable, Contention: naming what could not be done; the others were seen to.
        """
        ...


@dataclass(frozen=True)
class ControlPlane:
    """The ports, and where the stack can launch."""

    store: RunStore
    objects: ObjectStore
    machines: Machines
    publisher: Publisher  # of the events that users follow
    switch: Switch
    clock: Clock
    site: Site
    telemetry: Telemetry
    pause: Callable[[float], None]  # seconds; between tries after a throttle
    runs_queue: RunsQueue | None = None  # None: the sweep answers due runs itself, and finds every due time
    replicas: Mapping[str, ObjectStore] = field(default_factory=dict)  # copies of `objects`, by region
    collects: bool = True  # False: what is to be deleted waits for a function that has the right and the time
    hosts: HostStore | None = None  # of one's own; None: this stack has none
    keeper: Keeper | None = None  # of what runs on them
    experience: ExperienceStore | None = None  # None: the ladder goes by the spec's own order
    scores: PlacementScores | None = None  # None: EC2 is not asked where it has Spot capacity
    line: LaunchLine | None = None  # None: a throttled launch goes again after a while, knowing of no other
    books: Books | None = None  # of the account's budget, where `site.budget` sets one
