"""What an hour of progress costs: price, life, start and the way of the checkpoint in one figure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Reserve
from spotrelay.core.experience import Experience, PoolRecord, priced
from spotrelay.core.lessons import Event, lessons
from spotrelay.core.placement import Market, Pool
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.scoring import SUPPOSED_START, Journey, Transfer, scores, start_of
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HERE, SIBLING = Pool("eu-west-1", "eu-west-1a", "g5.xlarge"), Pool("eu-west-1", "eu-west-1b", "g5.xlarge")
AWAY = Pool("us-east-1", "us-east-1a", "g5.xlarge")
ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"), ("us-east-1", "us-east-1a"))
NOWHERE = Journey(0.0, frozenset())
QUARTER = timedelta(minutes=15)


def cheapest(prices: dict[Pool, float], lasting: dict[Pool, float], journey: Journey = NOWHERE) -> Pool:
    found = scores(prices, prices, lasting, QUARTER, journey, ordered=True)
    return min(found, key=lambda pool: found[pool].dollars)


def test_the_cheaper_of_two_pools_that_last_alike_is_cheaper() -> None:
    assert cheapest({HERE: 0.5, SIBLING: 0.4}, {HERE: 5.0, SIBLING: 5.0}) == SIBLING


def test_a_cheap_pool_that_loses_machines_at_once_is_dear() -> None:
    assert cheapest({HERE: 0.5, SIBLING: 0.4}, {HERE: 5.0, SIBLING: 0.4}) == HERE


def test_egress_of_a_large_checkpoint_is_worth_more_than_a_small_difference_in_price() -> None:
    prices, lasting = {HERE: 0.50, AWAY: 0.45}, {HERE: 4.0, AWAY: 4.0}

    assert cheapest(prices, lasting, Journey(1.0, frozenset({"eu-west-1"}))) == AWAY
    assert cheapest(prices, lasting, Journey(100.0, frozenset({"eu-west-1"}))) == HERE


def test_the_time_of_the_transfer_counts_and_not_only_its_price() -> None:
    free = Transfer(dollars_per_gib=1e-9, mib_per_second=20.0)

    assert (
        cheapest({HERE: 0.5, AWAY: 0.49}, {HERE: 2.0, AWAY: 2.0}, Journey(100.0, frozenset({"eu-west-1"}), free))
        == HERE
    )


def test_an_unknown_price_counts_as_the_dearest_one() -> None:
    found = scores((HERE, SIBLING, AWAY), {HERE: 0.4, SIBLING: 0.6}, {}, QUARTER, NOWHERE, ordered=True)

    assert found[AWAY].dollars == pytest.approx(found[SIBLING].dollars)


def test_where_only_lives_differ_nothing_is_scored() -> None:
    assert scores((HERE, SIBLING), {HERE: 0.4, SIBLING: 0.4}, {HERE: 9.0}, QUARTER, NOWHERE, ordered=True) == {}
    assert scores((HERE, AWAY), {}, {HERE: 9.0}, QUARTER, NOWHERE, ordered=True) == {}


def test_a_list_of_types_is_a_wish_and_an_answer_to_requirements_is_none() -> None:
    second = replace(HERE, instance_type="g6.xlarge")
    prices = {HERE: 0.5, second: 0.4}

    wished = scores(prices, prices, {}, QUARTER, NOWHERE, ordered=True)
    alike = scores(prices, prices, {}, QUARTER, NOWHERE, ordered=False)

    assert wished[HERE].dollars < wished[second].dollars
    assert alike[HERE].dollars > alike[second].dollars


def test_the_start_is_that_of_the_runs_own_attempts() -> None:
    run = Run("r1", Spec(("train",), ("g5.xlarge",)), NOON)
    took = tuple(
        Attempt(number, launched_at=NOON, first_step_at=NOON + timedelta(minutes=minutes))
        for number, minutes in enumerate((3, 20, 5), 1)
    )

    assert start_of(run) == SUPPOSED_START
    assert start_of(replace(run, attempts=took)) == timedelta(minutes=5)


def run_with_checkpoint(gib: int) -> Run:
    commit = Commit("r1", 1, 1, 10, "m", "v", "d", gib * 2**30)
    return Run(
        "r1",
        Spec(("train",), ("g5.xlarge",)),
        NOON,
        attempts=(Attempt(1, AttemptState.ENDED, ended_at=NOON, machine_gone_at=NOON),),
        checkpoints=(Checkpoint(commit, Verdict(1, 1, True, "", NOON)),),
    )


@pytest.mark.parametrize(("gib", "chosen"), [(1, AWAY), (400, HERE)])
def test_the_decision_weighs_the_checkpoints_way_and_says_so(gib: int, chosen: Pool) -> None:
    known = Experience(tuple(PoolRecord(p, NOON, hours=40, losses=10) for p in (HERE, SIBLING)))
    known = Experience((*known.records, PoolRecord(AWAY, NOON, hours=60, losses=10)))
    site = Site(ZONES, home="eu-west-1", experience=known)

    decision = decide(run_with_checkpoint(gib), NOON + HOUR, site)

    assert isinstance(decision, Reserve)
    assert decision.rung.pools[0].region == chosen.region
    assert "dollars an hour of progress" in decision.why
    assert (f"{gib}.0 GiB from elsewhere" in decision.why) is (chosen == AWAY)


def test_spot_comes_before_on_demand_whatever_it_costs() -> None:
    spec = Spec(("train",), ("g5.xlarge",), on_demand=True)
    prices = {HERE: 2.0, SIBLING: 2.0, AWAY: 2.0, replace(HERE, market=Market.ON_DEMAND.value): 1.0}

    decision = decide(Run("r1", spec, NOON), NOON, Site(ZONES, prices=prices))

    assert isinstance(decision, Reserve)
    assert decision.rung.pools[0].market == Market.SPOT.value


def test_what_a_machine_costs_is_learnt_by_the_whole_account() -> None:
    before = Run("r1", Spec(("train",), ("g5.xlarge",)), NOON)
    given = Attempt(1, AttemptState.BOOTING, "i-00000000000000001", HERE, price=0.42, launched_at=NOON)

    told = lessons(before, replace(before, attempts=(given,)))

    assert [(lesson.event, lesson.price) for lesson in told][-1] == (Event.PRICED, 0.42)
    known = priced(Experience(), HERE, 0.42, NOON)
    assert priced(known, HERE, 0.42, NOON + HOUR) is known
    record = priced(known, HERE, 0.5, NOON + HOUR).record_of(HERE)
    assert record is not None and record.price == 0.5
