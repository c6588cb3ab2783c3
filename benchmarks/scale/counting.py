"""Ports that count the requests which their adapters would make, by partition and second of the clock."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from benchmarks.scale import requests as made
from benchmarks.scale.requests import Request
from handlers.control import ControlPlane
from spotrelay.aws import layout
from spotrelay.core.experience import Experience
from spotrelay.core.lessons import Lesson
from spotrelay.core.ports import ExperienceStore
from spotrelay.core.run import Run


@dataclass
class Tally:
    """Every request so far."""

    clock: Callable[[], datetime]
    lock: threading.Lock = field(default_factory=threading.Lock)
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    read_units: float = 0.0
    write_units: float = 0.0
    by_second: defaultdict[tuple[str, int], list[float]] = field(
        default_factory=lambda: defaultdict(lambda: [0.0, 0.0])
    )

    def add(self, requests: Iterable[Request]) -> None:
        """Count these."""
        second = int(self.clock().timestamp())
        with self.lock:
            for each in requests:
                if each.operation not in ("index", "part of it"):
                    self.operations[each.service, each.operation] += 1
                self.read_units += each.read_units
                self.write_units += each.write_units
                if each.partition:
                    units = self.by_second[each.partition, second]
                    units[0] += each.read_units
                    units[1] += each.write_units

    def calls(self, service: str) -> int:
        """Requests to one service."""
        return sum(many for (name, _), many in self.operations.items() if name == service)

    def hottest(self, which: int, most: int = 5) -> dict[str, float]:
        """Partitions with the most units within one second; `which` is 0 for reads, 1 for writes."""
        peaks: dict[str, float] = {}
        for (partition, _), units in self.by_second.items():
            kind = _kind(partition)
            peaks[kind] = max(peaks.get(kind, 0.0), units[which])
        return dict(sorted(peaks.items(), key=lambda item: -item[1])[:most])


def _kind(partition: str) -> str:
    """One name for the partitions of all runs, and of all machines; the others by themselves."""
    head, mark, _ = partition.partition("#")
    return f"one {head}#" if mark and head in ("RUN", "LIVE", "INSTANCE") else partition


class Counted:
    """A port whose calls are counted once they have been answered."""

    def __init__(self, port: Any, tally: Tally, translate: Callable[[str, Any, tuple[Any, ...]], Iterator[Request]]):
        self._port = port
        self._tally = tally
        self._translate = translate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            answer = list(answer) if name == "managed" else answer
            self._tally.add(self._translate(name, answer, arguments))
            return answer

        return call


def counted(plane: ControlPlane, tally: Tally) -> ControlPlane:
    """The plane with every request to DynamoDB, EC2 and SQS counted."""
    regions = sorted({region for region, _ in plane.site.zones})
    there, rows = plane.machines, plane.store

    def size(run: Run) -> int:
        """As it is stored: encoding each row a second time to measure it costs more than the rest of the counting."""
        return rows.size(run) + made.BESIDE  # type: ignore[attr-defined,no-any-return]  # it is a MemoryStore

    def store(name: str, answer: Any, given: tuple[Any, ...]) -> Iterator[Request]:
        match name:
            case "load":
                return made.of_load(answer, size)
            case "save":
                saved = answer if answer.news else replace(answer, news=given[1].news)
                return made.of_save(given[0], saved, size)
            case "due":
                return made.of_due(answer)
            case "owners":
                return made.of_owners(given[0], answer)
            case "run_of":
                return made.of_small(name, layout.instance_key(given[0]))
            case _:
                return made.of_small(name, layout.run_key(str(given[0])))

    def machines(name: str, answer: Any, given: tuple[Any, ...]) -> Iterator[Request]:
        if name == "managed":
            many = Counter(machine.pool.region for machine in there.machines if not machine.state.is_over)  # type: ignore[attr-defined]
            return made.of_managed(regions, many, given[0] if given else None)
        return iter(() if name == "prepare" else (Request("ec2", name),))

    def line(name: str, answer: Any, given: tuple[Any, ...]) -> Iterator[Request]:
        return made.of_small(name, f"LINE#{given[0]}") if name == "join" else iter(())

    queue = None if plane.runs_queue is None else CountedQueue(plane.runs_queue, tally)
    return replace(
        plane,
        store=Counted(plane.store, tally, store),
        machines=Counted(plane.machines, tally, machines),
        runs_queue=queue,
        experience=None if plane.experience is None else CountedExperience(plane.experience, tally),
        line=None if plane.line is None else Counted(plane.line, tally, line),
    )


class CountedQueue:
    """The queue of runs that are due, ten messages a request."""

    def __init__(self, queue: Any, tally: Tally) -> None:
        self._queue = queue
        self._tally = tally

    def send(self, run_ids: Iterable[str], after: timedelta = timedelta(0)) -> None:
        """Pass on, and count."""
        names = list(run_ids)
        self._queue.send(names, after)
        self._tally.add(made.of_send(len(names)))


class CountedExperience:
    """The account's experience, whose items grow with what was learnt."""

    def __init__(self, experience: ExperienceStore, tally: Tally) -> None:
        self._experience = experience
        self._tally = tally

    def recall(self) -> Experience:
        """Pass on, and count."""
        known = self._experience.recall()
        self._tally.add(made.of_recall(known))
        return known

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        """Pass on, and count; what teaches nothing new is read and not written."""
        told = list(lessons)
        before = self._experience.recall()
        self._experience.learn(told, scale)
        after = self._experience.recall()
        self._tally.add(made.of_learn(before, after, {(each.pool.region, each.pool.instance_type) for each in told}))
