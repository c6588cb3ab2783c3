"""What every `LaunchLine` must do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.line import Pace
from spotrelay.core.ports import LaunchLine
from spotrelay.testing.contracts.race import RACERS, race

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HERE, THERE = "eu-west-1", "us-east-1"
PACE = Pace(per_second=4.0, horizon=timedelta(seconds=60))
STEP = timedelta(seconds=0.25)

NewLine = Callable[[], LaunchLine]  # of another process, at PACE


class LaunchLineContract:
    """Inherit, and give it `new_line`."""

    @pytest.fixture
    def new_line(self) -> NewLine:
        """Makes the line as one more process sees it; nobody stands in it."""
        raise NotImplementedError("give the suite its line")

    def test_nobody_waits_at_first(self, new_line: NewLine) -> None:
        assert not new_line().stands(HERE, NOON)

    def test_turns_follow_each_other_at_the_pace_whoever_asks(self, new_line: NewLine) -> None:
        one, other = new_line(), new_line()

        turns = [line.join(HERE, NOON, 0.5) for line in (one, other, one, other)]

        assert [turn.at - NOON for turn in turns] == [STEP, 2 * STEP, 3 * STEP, 4 * STEP]
        assert all(turn.taken for turn in turns)

    def test_who_stood_in_line_knows_of_it_until_its_turn(self, new_line: NewLine) -> None:
        line = new_line()

        line.join(HERE, NOON, 0.5)

        assert line.stands(HERE, NOON)
        assert not line.stands(HERE, NOON + STEP)
        assert not line.stands(THERE, NOON)

    def test_a_line_that_was_worked_off_begins_anew(self, new_line: NewLine) -> None:
        line = new_line()
        line.join(HERE, NOON, 0.5)
        later = NOON + timedelta(minutes=5)

        assert line.join(HERE, later, 0.5).at == later + STEP
        assert line.join(THERE, later, 0.5).at == later + STEP

    def test_beyond_the_horizon_no_turn_is_given_and_none_is_lost(self, new_line: NewLine) -> None:
        line = new_line()
        given = [line.join(HERE, NOON, 0.5) for _ in range(240)]

        early, late = (line.join(HERE, NOON, spread) for spread in (0.0, 1.0))

        assert all(turn.taken for turn in given)
        assert (early.taken, early.at) == (False, NOON + timedelta(seconds=30))
        assert (late.taken, late.at) == (False, NOON + timedelta(seconds=60))
        assert line.join(HERE, NOON + STEP, 0.5).at == given[-1].at + STEP

    def test_of_many_who_join_at_once_no_two_get_the_same_turn(self, new_line: NewLine) -> None:
        lines = [new_line() for _ in range(RACERS)]
        lines[0].join(HERE, NOON, 0.5)

        turns: list[object] = race([lambda line=line: line.join(HERE, NOON, 0.5).at for line in lines])  # type: ignore[misc]

        assert sorted(map(str, turns)) == [str(NOON + STEP * (number + 2)) for number in range(RACERS)]
