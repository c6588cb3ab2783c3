"""What `spotrelay status RUN` says of money, deadline, machines, and the next step."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from spotrelay.console.standing import lines, standing
from spotrelay.core.lifecycle import pause
from spotrelay.core.run import Run, RunStatus, settle, with_machine
from spotrelay.core.spec import Limits, Spec
from tests.core import test_gangs as gangs
from tests.core import test_markets as markets
from tests.core.test_decide import NOON, launched, submitted, training

HOUR = timedelta(hours=1)
PAID = Spec(("train",), ("g5.xlarge",), limits=Limits(max_dollars=40.0))


def told(run: Run, now: datetime = NOON) -> list[str]:
    return list(lines(standing(run, now), now))


def test_money_is_told_as_spent_set_aside_and_ceiling() -> None:
    run = launched(PAID, price=2.0)
    attempt = replace(run.attempts[0], paid_until=NOON + 4 * HOUR)
    run = replace(run, attempts=(attempt,))

    about = standing(run, NOON + HOUR)

    assert about["money"] == {"spent": 2.0, "set_aside": 6.0, "ceiling": 40.0}
    assert told(run, NOON + HOUR) == ["money: $2.00 spent, $6.00 more set aside, of $40.00 (limits.max_dollars)"]


def test_a_price_that_nobody_knows_is_not_taken_for_nothing() -> None:
    run = launched(PAID)
    run = replace(run, attempts=(replace(run.attempts[0], price=None),))

    assert standing(run, NOON + HOUR)["money"] == {"spent": None, "set_aside": None, "ceiling": 40.0}
    assert told(run) == ["money: nobody has told its price; of $40.00 (limits.max_dollars)"]


def test_a_run_that_bounds_nothing_and_has_cost_nothing_has_no_line() -> None:
    assert told(submitted()) == []


@pytest.mark.parametrize(("saved", "said"), [(900, "ahead of even progress"), (10, "behind even progress")])
def test_a_deadline_is_told_with_how_far_the_run_is_ahead_or_behind(saved: int, said: str) -> None:
    now = NOON + 10 * HOUR
    spec = Spec(("train",), ("g5.xlarge",), deadline_hours=20)
    run = markets.training(markets.SPOT, NOON, step=950, now=now, spec=spec, saved=saved)

    about = standing(run, now)["deadline"]
    line = next(line for line in told(run, now) if line.startswith("deadline"))

    assert about["state"] == said.split()[0] and about["by_s"] > 3600
    assert line.startswith("deadline: 2026-01-06 08:00 UTC, in 10 h: ") and line.endswith(said)


@pytest.mark.parametrize(
    ("status", "hours", "line"),
    [
        (None, 1, "in 2 h: nobody knows yet how much is to be done"),
        (None, 5, "missed by 2 h"),
        (RunStatus.SUCCEEDED, 1, "in 2 h: met, 2 h before"),
        (RunStatus.SUCCEEDED, 5, "missed by 2 h"),
    ],
)
def test_a_deadline_is_met_missed_or_not_to_be_judged_yet(status: RunStatus | None, hours: int, line: str) -> None:
    run, now = submitted(Spec(("train",), ("g5.xlarge",), deadline_hours=3)), NOON + hours * HOUR
    if status is not None:
        run = replace(run, status=status, outcome=status, ended_at=now)

    assert [each.replace(" UTC: ", " UTC, ") for each in told(run, now)] == [f"deadline: 2026-01-05 15:00 UTC, {line}"]


def test_a_paused_run_names_the_command_that_resumes_it() -> None:
    resting = settle(submitted(), pause(submitted(), "lunch", NOON))
    saving = settle(training(), pause(training(), "lunch", NOON))

    assert standing(resting, NOON)["next"] == "it rests; spotrelay resume run-1 lets it go on"
    assert standing(saving, NOON)["next"] == (
        "it saves and its machine goes, then it rests; spotrelay resume run-1 lets it go on"
    )


def test_a_run_that_is_over_names_the_retry_where_there_is_one() -> None:
    failed = replace(submitted(), status=RunStatus.FAILED, outcome=RunStatus.FAILED, ended_at=NOON)
    poor = replace(launched(PAID, price=50.0), status=RunStatus.FAILED, outcome=RunStatus.FAILED, ended_at=NOON)
    done = replace(submitted(), status=RunStatus.SUCCEEDED, outcome=RunStatus.SUCCEEDED, ended_at=NOON)

    assert standing(failed, NOON)["next"] == "mend the cause, then: spotrelay retry run-1"
    assert "submit it anew with more" in standing(poor, NOON + HOUR)["next"]
    assert standing(done, NOON)["next"] is None


def test_a_run_for_which_the_account_has_no_money_says_so_and_when_it_asks_again() -> None:
    waiting = replace(submitted(), broke_until=NOON + timedelta(minutes=7))
    trains = training(PAID, price=2.0)
    attempt = replace(trains.attempts[0], paid_until=NOON + HOUR)
    trains = replace(trains, attempts=(attempt,), broke_until=NOON - HOUR)

    assert standing(waiting, NOON)["next"] == (
        "the account's budget of the day is used up, asked again in 7 min (spotrelay budget shows who holds it)"
    )
    assert "asked again now; its machine is paid for until 13:00 UTC" in standing(trains, NOON)["next"]


def test_a_gang_tells_how_many_of_its_machines_are_up() -> None:
    run = gangs.training(price=1.0)
    lost = with_machine(run.attempts[0], replace(run.attempts[0].machines[1], machine_gone_at=NOON))
    run = replace(run, attempts=(lost,))

    assert (standing(run, NOON)["nodes"], standing(run, NOON)["nodes_up"]) == (3, 2)
    assert told(run)[0] == "machines: 2 of 3"
