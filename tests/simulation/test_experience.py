"""What an account learns of its pools, and how the ladder goes by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.claim import claim
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Reserve
from spotrelay.core.experience import FADES, MACHINES_KEPT, Experience, answered, ended, worth
from spotrelay.core.facts import LaunchAnswered
from spotrelay.core.lease import Lease
from spotrelay.core.placement import FailureScope, Pool, Refusal, next_rung
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.record import record
from spotrelay.core.run import Run, RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Limits, Spec, pools_of

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"), ("us-east-2", "us-east-2a"))
SPEC = Spec(("train",), ("g5.xlarge", "g6.xlarge"), on_demand=True)
POOLS = pools_of(SPEC, ZONES)
WEST_A, WEST_B, EAST = POOLS[:3]
MACHINE = "i-00000000000000001"


def lived(experience: Experience, pool: Pool, spell: timedelta, until: datetime, taken: bool = True) -> Experience:
    """A machine lasted this long there."""
    experience = answered(experience, MACHINE, pool, (), until - spell)
    return ended(experience, pool, MACHINE, taken, until)


def refused(pool: Pool, at: datetime, scope: FailureScope = FailureScope.POOL) -> Refusal:
    return Refusal(pool, scope, "Code", "", at)


def after_refusal(pool: Pool, at: datetime, scope: FailureScope = FailureScope.POOL) -> Experience:
    return answered(Experience(), None, None, (refused(pool, at, scope),), at)


def test_without_experience_nothing_is_known() -> None:
    assert worth(Experience(), POOLS, NOON) == {}


def test_a_pool_whose_machines_lasted_is_worth_more_than_one_that_took_them_back() -> None:
    experience = Experience()
    for hour in range(4):
        experience = lived(experience, WEST_A, timedelta(minutes=10), NOON + hour * HOUR)
    experience = lived(experience, EAST, 9 * HOUR, NOON + 4 * HOUR)

    value = worth(experience, POOLS, NOON + 9 * HOUR)

    assert value[EAST] > 3 * value[WEST_A]


def test_where_nothing_is_known_a_pool_is_thought_like_its_siblings() -> None:
    experience = lived(Experience(), WEST_A, 20 * HOUR, NOON - 9 * HOUR)

    value = worth(experience, POOLS, NOON)

    assert value[WEST_B] > 2 * value[EAST]


def test_a_machine_that_still_lives_counts_from_the_first_day() -> None:
    experience = answered(Experience(), MACHINE, WEST_A, (), NOON)

    early, late = (worth(experience, POOLS, NOON + hours * HOUR)[WEST_A] for hours in (1, 30))

    assert late > early + 29


def test_a_pool_that_refused_just_now_is_worth_least_and_recovers() -> None:
    experience = after_refusal(WEST_A, NOON)

    now, soon, later = (
        worth(experience, (WEST_A,), NOON + after)[WEST_A] for after in (timedelta(0), HOUR / 6, 6 * HOUR)
    )

    assert now < soon / 3 < soon < later


def test_a_quota_speaks_of_its_region_and_family_and_of_no_other() -> None:
    value = worth(after_refusal(WEST_A, NOON, FailureScope.QUOTA), POOLS, NOON)

    assert value[WEST_B] < value[EAST] / 5


@pytest.mark.parametrize("scope", [FailureScope.CONFIGURATION, FailureScope.THROTTLE, FailureScope.UNKNOWN])
def test_a_refusal_that_speaks_of_no_place_teaches_nothing(scope: FailureScope) -> None:
    assert after_refusal(WEST_A, NOON, scope) == Experience()


def test_a_machine_that_we_ended_ourselves_is_no_loss() -> None:
    taken = lived(Experience(), WEST_A, HOUR, NOON, taken=True)
    let_go = lived(Experience(), WEST_A, HOUR, NOON, taken=False)

    assert worth(let_go, POOLS, NOON)[WEST_A] > worth(taken, POOLS, NOON)[WEST_A]


def test_what_is_told_again_changes_nothing() -> None:
    refusals = (refused(WEST_B, NOON),)
    once = answered(Experience(), MACHINE, WEST_A, refusals, NOON)
    over = ended(once, WEST_A, MACHINE, True, NOON + HOUR)

    assert worth(answered(once, MACHINE, WEST_A, refusals, NOON), POOLS, NOON) == worth(once, POOLS, NOON)
    assert ended(over, WEST_A, MACHINE, True, NOON + HOUR) == over


def test_an_outage_asked_about_often_is_one_trouble() -> None:
    experience = Experience()
    for minute in range(0, 120, 10):
        now = NOON + timedelta(minutes=minute)
        experience = answered(experience, None, None, (refused(WEST_A, now),), now)

    record_of = experience.record_of(WEST_A)

    assert record_of is not None and record_of.losses < 0.5


def test_experience_fades() -> None:
    experience = lived(Experience(), WEST_A, 40 * HOUR, NOON)

    fresh, old = (worth(experience, (WEST_A,), NOON + after)[WEST_A] for after in (10 * HOUR, 8 * FADES))

    assert old < fresh / 4


def test_machines_beyond_the_bound_are_not_followed() -> None:
    experience = Experience()
    for number in range(MACHINES_KEPT + 5):
        experience = answered(experience, f"i-{number}", WEST_A, (), NOON)

    record_of = experience.record_of(WEST_A)

    assert record_of is not None and len(record_of.machines) == MACHINES_KEPT
    assert ended(experience, WEST_A, f"i-{MACHINES_KEPT}", True, NOON + HOUR) == experience


def test_experience_survives_json() -> None:
    experience = answered(Experience(), MACHINE, WEST_A, (refused(EAST, NOON),), NOON)

    assert from_json(Experience, to_json(experience)) == experience


# The ladder


def test_the_ladder_goes_to_the_region_whose_machines_last() -> None:
    rung = next_rung(POOLS, (), (), NOON, worth={WEST_A: 1.0, WEST_B: 1.5, EAST: 5.0})

    assert rung is not None and rung.pools == (EAST,)


def test_within_a_request_the_best_zone_is_named_first_and_a_far_worse_one_waits() -> None:
    near = next_rung(POOLS, (), (), NOON, worth={WEST_A: 4.0, WEST_B: 5.0, EAST: 1.0})
    far = next_rung(POOLS, (), (), NOON, worth={WEST_A: 1.0, WEST_B: 5.0, EAST: 1.0})

    assert near is not None and near.pools == (WEST_B, WEST_A)
    assert far is not None and far.pools == (WEST_B,)


def test_a_type_further_down_the_list_has_to_last_clearly_longer() -> None:
    second = POOLS[3]

    a_little = next_rung(POOLS, (), (), NOON, worth=dict.fromkeys(POOLS, 1.0) | {second: 1.8})
    far = next_rung(POOLS, (), (), NOON, worth=dict.fromkeys(POOLS, 1.0) | {second: 2.2})

    assert a_little is not None and a_little.pools[0].instance_type == "g5.xlarge"
    assert far is not None and far.pools[0] == second


def test_no_experience_puts_on_demand_before_spot() -> None:
    rung = next_rung(POOLS, (), (), NOON, worth=dict.fromkeys(POOLS[:6], 0.01))

    assert rung is not None and rung.pools[0].market == "spot"


@given(lost=st.sampled_from(POOLS), hours=st.lists(st.floats(0, 1e4), min_size=len(POOLS), max_size=len(POOLS)))
def test_whatever_was_learnt_the_first_rung_is_never_the_pool_just_lost(lost: Pool, hours: list[float]) -> None:
    values = dict(zip(POOLS, hours, strict=True))

    rung = next_rung(POOLS, (), ((lost, NOON),), NOON + timedelta(seconds=1), worth=values)

    assert rung is not None and lost not in rung.pools


@given(hours=st.lists(st.floats(0, 1e4), min_size=len(POOLS), max_size=len(POOLS)))
def test_whatever_was_learnt_every_pool_is_asked_before_the_run_waits(hours: list[float]) -> None:
    values = dict(zip(POOLS, hours, strict=True))
    refusals: tuple[Refusal, ...] = ()

    while rung := next_rung(POOLS, refusals, (), NOON, worth=values):
        refusals += tuple(refused(p, NOON) for p in rung.pools)

    assert {r.pool for r in refusals} == set(POOLS) and len(refusals) == len(POOLS)


def test_a_decision_goes_by_the_accounts_experience() -> None:
    run = Run("run-1", SPEC, NOON, lease=Lease("run-1"))
    known = lived(Experience(), EAST, 30 * HOUR, NOON - 5 * HOUR)

    plain, wise = (decide(run, NOON, Site(ZONES, experience=e)) for e in (None, known))

    assert isinstance(plain, Reserve) and plain.rung.pools == (WEST_A, WEST_B)
    assert isinstance(wise, Reserve) and wise.rung.pools == (EAST,)
    assert "last longest" in wise.why


def test_requests_that_were_refused_do_not_use_up_the_launches() -> None:
    run = Run("run-1", Spec(("train",), ("g5.xlarge",), limits=Limits(max_launches=2)), NOON, lease=Lease("run-1"))
    site, now = Site(ZONES), NOON

    for _ in range(5):
        now += HOUR
        decision = decide(run, now, site)
        assert isinstance(decision, Reserve), decision
        run = claim(run, decision, now, site, {})
        answer = LaunchAnswer(None, None, tuple(refused(p, now) for p in decision.rung.pools))
        run = record(run, LaunchAnswered(run.launches, answer), now, site)

    assert run.status is RunStatus.WAITING
