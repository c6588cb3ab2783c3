"""What `spotrelay budget` shows of a day's books."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from spotrelay.aws.places import Places
from spotrelay.aws.stack import Stack
from spotrelay.console.budget import account, ceiling_of, day_of, show
from spotrelay.core.budget import MICRO, Books, Hold, Waiting
from spotrelay.core.errors import InvalidInput
from spotrelay.testing import MemoryCells
from spotrelay.testing.contracts.budget import DAY, HOUR, NOON


def books() -> Books:
    found = Books(MemoryCells())
    found.set_aside(Hold("train", 2, DAY, 3 * MICRO, NOON + HOUR, rate=MICRO), 10 * MICRO, NOON)
    found.set_aside(Hold("other", 1, DAY, MICRO, NOON + HOUR, rate=2 * MICRO), 10 * MICRO, NOON)
    found.confirm(Hold("train", 2, DAY, 3 * MICRO, NOON + HOUR, rate=MICRO))
    return found


def stack(**outputs: str) -> Stack:
    return Stack("Spotrelay", "eu-west-1", "table", "bucket", "bus", "switch", Places({}), outputs)


def test_a_day_is_told_with_what_is_left_and_who_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    about = account(books().cells(DAY), 10.0, DAY, NOON)
    show(about)

    assert (about["set_aside"], about["left"], about["dollars_per_hour"]) == (4.0, 6.0, 3.0)
    assert [(h["run_id"], h["dollars"], h["machine"]) for h in about["holds"]] == [
        ("other", 1.0, False),
        ("train", 3.0, True),
    ]
    said = capsys.readouterr().out
    assert "$4.00 spent or set aside of $10.00, $6.00 left" in said
    assert "train\t2\t$3.00\t13:00\tmachine" in said


def test_what_a_run_that_ended_has_spent_is_shown_beside_what_others_hold_and_wait_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = books()
    found.close("other", 1, DAY, MICRO // 2)
    found.wait(DAY, Waiting("poor", NOON, NOON + HOUR, 7 * MICRO))

    about = account(found.cells(DAY), 10.0, DAY, NOON)
    show(about)

    assert about["ended"] == [{"run_id": "other", "dollars": 0.5}]
    assert about["waiting"] == [{"run_id": "poor", "dollars": 7.0, "since": NOON, "machine": False}]
    listed = sum(each["dollars"] for each in (*about["holds"], *about["ended"]))
    assert listed == about["set_aside"] == 3.5
    said = capsys.readouterr().out
    assert "other\t\t$0.50\t\tspent by machines that are gone" in said
    assert "poor\t\t$0.00\t\twaits since 12:00 for $7.00 for a launch" in said


def test_a_stack_that_counts_no_money_says_how_to_let_it(capsys: pytest.CaptureFixture[str]) -> None:
    show(account((), ceiling_of(stack()), DAY, NOON))

    assert "budget_dollars_per_day" in capsys.readouterr().out
    assert ceiling_of(stack(DayDollars="none")) is None


def test_a_stack_that_only_counts_has_no_ceiling() -> None:
    about = account(books().cells(DAY), ceiling_of(stack(DayDollars="1000000000.0")), DAY, NOON)

    assert (about["counted"], about["ceiling"], about["left"]) == (True, None, None)


def test_a_day_is_todays_or_the_one_that_was_asked_for() -> None:
    assert day_of(None, NOON) == DAY
    assert day_of("2026-01-04", NOON) == date(2026, 1, 4) == DAY - timedelta(days=1)
    with pytest.raises(InvalidInput, match="2026-11-24"):
        day_of("yesterday", NOON)
