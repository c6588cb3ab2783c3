"""EC2's placement scores through the real functions: asked rarely, by the sweep alone, and missed by nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.control import ControlPlane
from handlers.outlooks import TURNS
from spotrelay.core.errors import SpotrelayError, Unavailable
from spotrelay.core.outlook import Question, ZoneScore
from spotrelay.testing import MemoryExperience
from tests.handlers.plane import SPEC, World

MINUTE = timedelta(minutes=1)
TYPES = ("g5.xlarge", "g5.2xlarge", "g6.xlarge")
SPEC3 = replace(SPEC, instance_types=TYPES)


class Scores:
    """EC2's answer, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.failure: SpotrelayError | None = None

    def ask(self, question: Question) -> tuple[ZoneScore, ...]:
        self.asked.append(question)
        if self.failure is not None:
            raise self.failure
        return tuple(
            ZoneScore("eu-west-1", f"eu-west-1{zone}", score) for zone, score in zip("abc", (1, 2, 9), strict=True)
        )


class Scored(World):
    """A world whose EC2 tells placement scores."""

    def __post_init__(self) -> None:
        self.scores = Scores()
        self.experience = MemoryExperience()

    @property
    def plane(self) -> ControlPlane:
        return replace(super().plane, scores=self.scores, experience=self.experience)

    def warnings(self) -> list[str]:
        return [message for level, message, _ in self.ledger.lines if level == "warning" and "placement" in message]


@pytest.fixture
def world() -> Scored:
    found = Scored()
    found.__post_init__()
    return found


def test_a_launch_asks_nothing_and_the_sweep_asks_once_an_hour_for_all_runs(world: Scored) -> None:
    for number in range(5):
        world.start(f"run-{number}", SPEC3)
    assert world.scores.asked == []

    world.settle(TURNS)
    assert world.scores.asked == [Question(tuple(sorted(TYPES)))]
    world.settle(55)
    assert len(world.scores.asked) == 1
    world.settle(10)
    assert len(world.scores.asked) == 2


def test_the_next_launch_goes_by_the_scores_and_says_so(world: Scored) -> None:
    world.start("first", SPEC3)
    world.settle(TURNS)

    world.start("second", SPEC3)

    where = world.run("second").attempts[0].pool
    assert where is not None and where.zone == "eu-west-1c"
    assert any("eu-west-1c 9" in entry.text for entry in world.store.timeline("second") if entry.kind == "reserved")


def test_a_right_that_is_missing_is_said_once_and_changes_nothing(world: Scored) -> None:
    world.scores.failure = Unavailable("asking for placement scores: not let in (UnauthorizedOperation)")
    world.start("first", SPEC3)
    world.start("other", replace(SPEC3, instance_types=(*TYPES, "g4dn.xlarge")))

    world.settle(24 * 60 // 2)
    world.start("second", SPEC3)

    assert len(world.warnings()) == 1
    assert 2 <= len(world.scores.asked) <= 6, "tried again after hours, in case the right is there by then"
    assert not any("score" in entry.text for entry in world.store.timeline("second"))


def test_a_stack_that_does_not_ask_keeps_no_questions() -> None:
    plain = Scored()
    plain.__post_init__()
    plane = replace(plain.plane, scores=None)
    plain.submit("run-1", SPEC3)

    plain.look(plane=plane)
    plain.sweep(MINUTE * TURNS, plane)

    assert plain.experience.recall().outlooks == ()
    assert plain.scores.asked == []


def test_types_that_nobody_has_used_for_a_day_are_not_asked_about_any_more(world: Scored) -> None:
    world.start("first", SPEC3)
    world.settle(26 * 6, every=10 * MINUTE)
    asked = len(world.scores.asked)

    world.settle(60, every=10 * MINUTE)

    assert 10 < asked <= 25
    assert len(world.scores.asked) == asked
