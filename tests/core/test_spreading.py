"""What happens to many runs at the same moment is not done again by all of them at the same moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from spotrelay.core.budget import Budget
from spotrelay.core.clockwork import spread
from spotrelay.core.facts import LaunchUnclear
from spotrelay.core.placement import Pool
from spotrelay.core.record import record
from spotrelay.core.run import Attempt, Intent, Run
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec
from spotrelay.core.spending import LOOK_AGAIN, asked_again_at, pay_at
from spotrelay.testing.clock import START

MANY = [f"run-{number}" for number in range(200)]
SITE = Site()


def a_run(run_id: str) -> Run:
    return Run(run_id, Spec(("train",), ("g5.xlarge",)), START)


def halves(moments: list[datetime]) -> tuple[int, int]:
    """How many are in each half of the time that they cover."""
    middle = min(moments) + (max(moments) - min(moments)) / 2
    return sum(at < middle for at in moments), sum(at >= middle for at in moments)


def test_names_are_spread_evenly_and_each_stays_where_it_is() -> None:
    found = [spread(name) for name in MANY]

    assert all(0 <= each < 1 for each in found)
    assert sum(each < 0.5 for each in found) in range(70, 131)
    assert found == [spread(name) for name in MANY]


def test_runs_that_were_refused_money_together_ask_again_apart() -> None:
    moments = [asked_again_at(a_run(name), START) for name in MANY]

    assert min(moments) >= START + LOOK_AGAIN * 0.5 and max(moments) <= START + LOOK_AGAIN * 1.5
    assert min(halves(moments)) > 50


def test_machines_that_came_together_have_their_next_piece_set_aside_apart() -> None:
    attempt = Attempt(1, instance_id="i-1", paid_until=START + timedelta(hours=1))

    moments = [pay_at(a_run(name), attempt, Budget(100.0), START) for name in MANY]

    assert min(halves(moments)) > 50


def test_launches_whose_outcome_is_unclear_together_are_sent_again_apart() -> None:
    intent = Intent(1, 1, {}, (Pool("us-east-1", "us-east-1a", "g5.xlarge"),), START, sent=1)
    moments = []
    for name in MANY:
        after = record(replace(a_run(name), intent=intent), LaunchUnclear(1, "no answer"), START, SITE)
        assert after.intent is not None and after.intent.due_at is not None
        moments.append(after.intent.due_at)

    assert min(halves(moments)) > 50
