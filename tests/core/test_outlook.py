"""Placement scores in the ladder: they tip the scales where nothing else is known, and outweigh nothing of our own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.decide import decide
from spotrelay.core.decisions import Reserve
from spotrelay.core.experience import Experience, answered, ended, worth
from spotrelay.core.outlook import (
    ANEW,
    BELIEVED,
    REFUSED,
    WANTED,
    Outlook,
    Question,
    ZoneScore,
    next_asked,
    question_of,
    renewed,
    weighed,
)
from spotrelay.core.placement import FailureScope, Market, Pool, Refusal
from spotrelay.core.run import Run
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TYPES = ("g6.xlarge", "g5.xlarge", "g4dn.xlarge")
REGION, ZONES = "eu-west-1", ("eu-west-1a", "eu-west-1b", "eu-west-1c")
SITE = Site(tuple((REGION, zone) for zone in ZONES))
QUESTION = Question(tuple(sorted(TYPES)))


def told(*scores: int, at: datetime = NOON - MINUTE, nodes: int = 1) -> Outlook:
    """An answer for the zones a, b and c."""
    told = tuple(ZoneScore(REGION, zone, score) for zone, score in zip(ZONES, scores, strict=False))
    return Outlook(replace(QUESTION, nodes=nodes), at, at, at, told)


def chosen(experience: Experience, **changes: object) -> Reserve:
    spec = replace(Spec(("train",), TYPES), **changes)  # type: ignore[arg-type]  # what a test changes
    found = decide(Run("run-1", spec, NOON), NOON, replace(SITE, experience=experience))
    assert isinstance(found, Reserve)
    return found


def zones(experience: Experience, **changes: object) -> list[str]:
    return [pool.zone[-1] for pool in chosen(experience, **changes).rung.pools]


def test_where_nothing_else_is_known_the_zone_with_the_best_score_comes_first() -> None:
    assert zones(Experience()) == ["a", "b", "c"]
    assert zones(Experience(outlooks=(told(2, 9, 5),))) == ["b", "c", "a"]


def test_the_reason_of_a_placement_tells_the_scores_and_their_age() -> None:
    outlook = told(2, 9, 5, at=NOON - 20 * MINUTE)

    assert (
        "EC2's placement scores 20 min ago: eu-west-1b 9, eu-west-1c 5, eu-west-1a 2 of 10"
        in chosen(Experience(outlooks=(outlook,))).why
    )
    assert "score" not in chosen(Experience()).why


@pytest.mark.parametrize(
    "outlook",
    [
        told(1, 9, 5, at=NOON - BELIEVED),
        told(1, 9, 5, nodes=2),
        replace(told(1, 9, 5), question=Question(("a", "b", "c"))),
        replace(told(), problem="not let in"),
    ],
    ids=["stale", "for two machines", "for other types", "refused"],
)
def test_an_answer_that_does_not_hold_here_changes_nothing(outlook: Outlook) -> None:
    with_it, without = chosen(Experience(outlooks=(outlook,))), chosen(Experience())

    assert with_it == without


def test_a_score_does_not_lift_a_type_above_one_that_the_spec_wishes_more() -> None:
    assert {pool.instance_type for pool in chosen(Experience(outlooks=(told(1, 1, 10),))).rung.pools} == {TYPES[0]}


@pytest.mark.parametrize("trouble", ["refusal", "loss"])
def test_the_best_score_does_not_outweigh_a_recent_refusal_or_loss_of_our_own(trouble: str) -> None:
    pool, then = Pool(REGION, ZONES[0], TYPES[0]), NOON - 20 * MINUTE
    known = answered(Experience(outlooks=(told(10, 1, 1),)), None, None, (), then)
    if trouble == "refusal":
        no = Refusal(pool, FailureScope.POOL, "InsufficientInstanceCapacity", "", then)
        known = answered(known, None, None, (no,), then)
    else:
        known = answered(known, "i-1", pool, (), then - MINUTE)
        known = ended(known, pool, "i-1", True, then)

    siblings = [replace(pool, zone=zone) for zone in ZONES[1:]]
    hours = weighed(worth(known, (pool, *siblings), NOON), (pool, *siblings), known.outlooks[0], 1.0)
    assert hours[pool] < min(hours[sibling] for sibling in siblings)
    assert pool not in chosen(known).rung.pools
    assert chosen(replace(known, records=())).rung.pools[0] == pool


def test_a_zone_that_ec2_leaves_out_is_none_of_the_best() -> None:
    assert zones(Experience(outlooks=(told(7, 8),))) == ["b", "a", "c"]


def test_a_score_is_about_spot_alone() -> None:
    fleet = {"on_demand": True}

    assert chosen(Experience(outlooks=(told(1, 2, 3),)), **fleet).rung.pools[0].market == Market.SPOT.value


# When EC2 is asked


def test_fewer_than_three_types_are_not_asked_about() -> None:
    pools = [Pool(REGION, ZONES[0], name) for name in TYPES]

    assert question_of(pools, 1) == QUESTION
    assert question_of(pools[:2], 1) is None
    assert question_of((*pools[:2], replace(pools[2], market=Market.ON_DEMAND.value)), 1) is None


def test_a_question_is_asked_again_after_an_hour_and_a_refused_one_after_six() -> None:
    answer, refused = told(5), replace(told(), problem="not let in")

    assert next_asked((answer,), NOON - MINUTE + ANEW - timedelta(seconds=1)) is None
    assert next_asked((answer,), NOON - MINUTE + ANEW) == answer
    assert next_asked((refused,), NOON - MINUTE + REFUSED - MINUTE) is None
    assert next_asked((refused,), NOON - MINUTE + REFUSED) == refused


def test_the_question_that_waits_longest_is_asked_first_and_one_that_nobody_wants_never() -> None:
    new, old = Outlook(Question(("a",)), NOON), Outlook(Question(("b",)), NOON - MINUTE)

    assert next_asked((new, old, told(5)), NOON) == old
    assert next_asked((new, old), NOON + WANTED) is None


def test_who_uses_a_question_writes_it_down_once_in_a_while_and_keeps_its_answer() -> None:
    answer = told(5)

    assert renewed((), QUESTION, NOON) == Outlook(QUESTION, NOON)
    assert renewed((answer,), QUESTION, NOON) is None
    later = NOON + WANTED / 2
    assert renewed((answer,), QUESTION, later) == replace(answer, wanted_at=later)
