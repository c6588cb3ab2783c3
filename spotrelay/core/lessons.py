"""What a change of a run teaches about pools: told to the account's experience once it is saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from spotrelay.core.experience import Experience, answered, ended, priced
from spotrelay.core.placement import Pool, Refusal
from spotrelay.core.run import Attempt, Run


class Event(Enum):
    """What happened in a pool."""

    GIVEN = "given"
    REFUSED = "refused"
    TAKEN = "taken"  # EC2 takes the machine back, or it died
    LET_GO = "let-go"  # we ended it, or its program did
    PRICED = "priced"  # what a machine there costs was told


@dataclass(frozen=True)
class Lesson:
    """One thing to learn."""

    event: Event
    pool: Pool
    at: datetime
    instance_id: str = ""  # empty for a refusal
    refusal: Refusal | None = None
    price: float | None = None


def lessons(before: Run, after: Run) -> tuple[Lesson, ...]:
    """What happened between two saved versions of a run, oldest first."""
    return tuple(sorted(_lessons(before, after), key=lambda lesson: lesson.at))


def learnt(experience: Experience, what: Iterable[Lesson], scale: float = 1.0) -> Experience:
    """The experience with these lessons in it."""
    for lesson in what:
        match lesson.event:
            case Event.REFUSED if lesson.refusal is not None:
                experience = answered(experience, None, None, (lesson.refusal,), lesson.at, scale)
            case Event.GIVEN:
                experience = answered(experience, lesson.instance_id, lesson.pool, (), lesson.at, scale)
            case Event.PRICED if lesson.price is not None:
                experience = priced(experience, lesson.pool, lesson.price, lesson.at, scale)
            case Event.TAKEN | Event.LET_GO:
                taken = lesson.event is Event.TAKEN
                experience = ended(experience, lesson.pool, lesson.instance_id, taken, lesson.at, scale)
    return experience


def _lessons(before: Run, after: Run) -> Iterator[Lesson]:
    known = set(before.refusals)
    yield from (Lesson(Event.REFUSED, r.pool, r.at, refusal=r) for r in after.refusals if r not in known)
    for attempt in after.attempts:
        old = before.attempt(attempt.generation)
        if attempt.pool is None or attempt.instance_id is None or attempt.launched_at is None:
            continue
        if old is None or old.instance_id is None:
            yield Lesson(Event.GIVEN, attempt.pool, attempt.launched_at, attempt.instance_id)
        if attempt.price is not None and (old is None or old.price is None):
            yield Lesson(Event.PRICED, attempt.pool, attempt.launched_at, attempt.instance_id, price=attempt.price)
        over = _over_at(attempt)
        if over is not None and (old is None or _over_at(old) is None):
            event = Event.TAKEN if _was_taken(attempt, after) else Event.LET_GO
            yield Lesson(event, attempt.pool, over, attempt.instance_id)


def _over_at(attempt: Attempt) -> datetime | None:
    """When it was clear that the machine would not go on: a notice says so before the end does."""
    return attempt.noticed_at or attempt.ended_at


def _was_taken(attempt: Attempt, run: Run) -> bool:
    if attempt.let_go:
        return False
    ours = attempt.crashed or attempt.terminate_asked_at is not None or run.outcome is not None
    return attempt.noticed_at is not None or not ours
