"""What every `ExperienceStore` must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.errors import Contention
from spotrelay.core.experience import Experience, worth
from spotrelay.core.lessons import Event, Lesson
from spotrelay.core.outlook import Outlook, Question, ZoneScore
from spotrelay.core.placement import FailureScope, Pool, Refusal
from spotrelay.core.ports import ExperienceStore
from spotrelay.testing.contracts.race import RACERS, of_kind, race

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HERE = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
THERE = Pool("us-east-1", "us-east-1a", "g5.xlarge")
MACHINE = "i-00000000000000001"


class ExperienceContract:
    """Inherit, and give it `store`."""

    @pytest.fixture
    def store(self) -> ExperienceStore:
        """The implementation under test, empty."""
        raise NotImplementedError("give the suite its store")

    def test_at_first_nothing_is_known(self, store: ExperienceStore) -> None:
        assert store.recall() == Experience()

    def test_what_one_learns_everybody_recalls(self, store: ExperienceStore) -> None:
        refusal = Refusal(THERE, FailureScope.POOL, "InsufficientInstanceCapacity", "", NOON)

        store.learn([Lesson(Event.GIVEN, HERE, NOON, MACHINE), Lesson(Event.REFUSED, THERE, NOON, refusal=refusal)])
        store.learn([Lesson(Event.TAKEN, HERE, NOON + timedelta(hours=5), MACHINE)])

        here, there = (store.recall().record_of(pool) for pool in (HERE, THERE))
        assert here is not None and (here.hours, here.losses, here.machines) == (5.0, 1.0, ())
        assert there is not None and there.refusal == refusal

    def test_a_lesson_told_twice_is_learnt_once(self, store: ExperienceStore) -> None:
        lesson = Lesson(Event.GIVEN, HERE, NOON, MACHINE)

        store.learn([lesson])
        once = worth(store.recall(), (HERE,), NOON)
        store.learn([lesson])

        assert worth(store.recall(), (HERE,), NOON) == once

    def test_what_ec2_says_of_zones_is_kept_beside_the_lessons_the_newest_in_its_place(
        self, store: ExperienceStore
    ) -> None:
        asked = Outlook(Question(("a", "b", "c"), 2), NOON)
        told = replace(asked, asked_at=NOON, told_at=NOON, scores=(ZoneScore("eu-west-1", "eu-west-1a", 7),))
        other = Outlook(Question(("a", "b", "d")), NOON, problem="not let in")

        store.keep(asked)
        store.learn([Lesson(Event.GIVEN, HERE, NOON, MACHINE)])
        for each in (told, other):
            store.keep(each)
        store.learn([Lesson(Event.GIVEN, THERE, NOON, MACHINE)])

        assert set(store.recall().outlooks) == {told, other}
        assert {record.pool for record in store.recall().records} == {HERE, THERE}

    def test_the_lessons_of_a_crowd_add_up(self, store: ExperienceStore) -> None:
        """Who is refused because others were faster has learnt nothing, and nobody else's lesson is lost."""

        def learner(number: int) -> Callable[[], None]:
            return lambda: store.learn([Lesson(Event.GIVEN, HERE, NOON, f"i-{number:017x}")])

        outcomes = race([learner(number) for number in range(RACERS)])

        record = store.recall().record_of(HERE)
        assert record is not None
        assert 0 < len(record.machines) == RACERS - of_kind(outcomes, Contention)
