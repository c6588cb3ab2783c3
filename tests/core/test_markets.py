"""Spot or on-demand, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Drain, Reserve, Wait
from spotrelay.core.errors import InvalidInput
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.markets import STAY, change_market, choose, in_time, may_return, work
from spotrelay.core.placement import FailureScope, Pool, Refusal
from spotrelay.core.run import FOR_ON_DEMAND, FOR_SPOT, Attempt, AttemptState, Run
from spotrelay.core.site import Site
from spotrelay.core.spec import Limits, Reservation, Spec, parse_spec, pools_of
from spotrelay.core.spending import price_of
from tests.core.test_decide import NOON, submitted

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"))
SPOT = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
ON_DEMAND = replace(SPOT, market="on-demand")
SPEC = Spec(
    ("train",), ("g5.xlarge",), on_demand=True, limits=Limits(max_launches=300, on_demand_prices={"g5.xlarge": 1.0})
)
PRICES = {pool: 0.35 for pool in pools_of(SPEC, ZONES) if pool.market == "spot"}
SITE = Site(ZONES, prices=PRICES)


def markets(run: Run, now: datetime, site: Site = SITE) -> list[str]:
    """The market of each group that a launch may ask, in order."""
    pools = pools_of(run.spec, site.zones)
    return ["+".join(dict.fromkeys(p.market for p in group)) for group in choose(run, pools, now, site).groups]


def ended(generation: int, start: datetime, end: datetime, pool: Pool = SPOT, **more: object) -> Attempt:
    """An attempt that trained and was taken by EC2."""
    known = Attempt(
        generation, AttemptState.ENDED, f"i-{generation:017x}", pool, reserved_at=start, launched_at=start,
        beating_at=start, running_at=start, first_step_at=start + 5 * MINUTE, noticed_at=end, noticed_by="eventbridge",
        ended_at=end, machine_gone_at=end,
    )  # fmt: skip
    return replace(known, **more)  # type: ignore[arg-type]


def run_with(*attempts: Attempt, spec: Spec = SPEC) -> Run:
    return replace(submitted(spec), attempts=attempts)


def training(pool: Pool, since: datetime, step: int, now: datetime, spec: Spec = SPEC, saved: int | None = None) -> Run:
    """A run whose first attempt trains, with a checkpoint that was verified a moment ago."""
    attempt = Attempt(
        1, AttemptState.RUNNING, "i-00000000000000001", pool, 1.0 if pool is ON_DEMAND else 0.35, since, since,
        since, since, since + 5 * MINUTE, last_step=step,
    )  # fmt: skip
    beat = Heartbeat("run-1", 1, 1, Phase.TRAINING, step, 1000)
    commit = Commit("run-1", 1, 1, step if saved is None else saved, "key", "v", "digest", 1)
    point = Checkpoint(commit, Verdict(1, 1, True, "", now))
    return replace(run_with(attempt, spec=spec), heartbeats=(beat,), checkpoints=(point,))


def left(run: Run, now: datetime, site: Site) -> Drain | None:
    assert run.current is not None
    return change_market(run, run.current, now, site)


# which market a launch may ask


def test_without_a_rule_on_demand_is_the_last_rung() -> None:
    assert markets(submitted(SPEC), NOON) == ["spot+on-demand"]
    assert markets(submitted(replace(SPEC, on_demand=False)), NOON) == ["spot"]


def test_on_demand_waits_for_as_long_as_the_spec_says_without_a_spot_machine() -> None:
    run = run_with(ended(1, NOON, NOON + HOUR), spec=replace(SPEC, on_demand_after_s=600))

    assert markets(run, NOON + HOUR + 9 * MINUTE) == ["spot"]
    assert markets(run, NOON + HOUR + 10 * MINUTE) == ["spot+on-demand"]
    assert markets(replace(run, attempts=()), NOON + 9 * MINUTE) == ["spot"]


def test_a_run_that_waits_for_on_demand_is_looked_at_when_its_time_has_come() -> None:
    run = run_with(ended(1, NOON, NOON + HOUR), spec=replace(SPEC, on_demand_after_s=90))
    now = NOON + HOUR + MINUTE
    refusals = tuple(Refusal(p, FailureScope.POOL, "InsufficientInstanceCapacity", "", now) for p in PRICES)
    run = replace(run, lease=replace(run.lease, floor=2), refusals=refusals)  # type: ignore[type-var]

    decision = decide(run, now, SITE)

    assert isinstance(decision, Wait)
    assert decision.until == NOON + HOUR + timedelta(seconds=90)
    later = decide(run, decision.until, SITE)
    assert isinstance(later, Reserve) and later.rung.pools[0].market == "on-demand"
    assert "no Spot machine for 90 s" in later.why


def test_after_so_many_losses_within_the_window_on_demand_comes_first_with_the_reason() -> None:
    spec = replace(SPEC, on_demand_after_losses=2, losses_within_s=3600)
    first, second = ended(1, NOON, NOON + 10 * MINUTE), ended(2, NOON + 10 * MINUTE, NOON + 30 * MINUTE)

    assert markets(run_with(first, spec=spec), NOON + 10 * MINUTE) == ["spot+on-demand"]
    both = run_with(first, second, spec=spec)
    assert markets(both, NOON + 30 * MINUTE) == ["on-demand", "spot"]
    assert "2 Spot machines lost within 3600 s" in choose(both, pools_of(spec, ZONES), NOON + 30 * MINUTE, SITE).why
    assert markets(both, NOON + 71 * MINUTE) == ["spot+on-demand"]


@pytest.mark.parametrize("end", [{"crashed": True}, {"noticed_by": FOR_SPOT}, {"pool": ON_DEMAND}])
def test_what_ended_otherwise_is_no_loss_of_a_spot_machine(end: dict[str, object]) -> None:
    spec = replace(SPEC, on_demand_after_losses=1)
    attempt = ended(1, NOON, NOON + 10 * MINUTE, **end)  # type: ignore[arg-type]

    run = run_with(replace(attempt, noticed_at=None) if "crashed" in end else attempt, spec=spec)

    assert markets(run, NOON + 11 * MINUTE) == ["spot+on-demand"]


# the way back


def test_on_demand_is_left_at_a_checkpoint_when_the_saving_is_worth_the_change() -> None:
    now = NOON + 2 * HOUR
    run = training(ON_DEMAND, NOON, 100, now)

    found = left(run, now, SITE)

    assert found is not None and (found.generation, found.by) == (1, FOR_SPOT)
    assert "saves $" in found.why and "the change costs $" in found.why


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("Spot is as dear", {"site": Site(ZONES, prices=dict.fromkeys(PRICES, 0.99))}),
        ("nobody knows what Spot costs", {"site": Site(ZONES)}),
        ("the spec says to stay", {"spec": replace(SPEC, back_to_spot=False)}),
        ("it has not been there for long", {"since": NOON + 2 * HOUR - STAY}),
        ("there is no checkpoint of its own", {"old": True}),
        ("it is nearly done", {"step": 995}),
        ("launches are switched off", {"site": replace(SITE, launches_allowed=False)}),
        ("no further launch is allowed", {"spec": replace(SPEC, limits=replace(SPEC.limits, max_launches=2))}),
        ("failover is off", {"spec": replace(SPEC, failover=False)}),
    ],
)
def test_on_demand_is_kept_as_long_as(what: str, change: dict[str, object]) -> None:
    now = NOON + 2 * HOUR
    spec, site = change.get("spec", SPEC), change.get("site", SITE)
    assert isinstance(spec, Spec) and isinstance(site, Site)
    since, step = change.get("since", NOON), change.get("step", 100)
    assert isinstance(since, datetime) and isinstance(step, int)
    run = training(ON_DEMAND, since, step, now, spec)
    if change.get("old"):
        run = replace(run, checkpoints=(replace(run.checkpoints[0], verdict=Verdict(1, 1, True, "", now - HOUR)),))

    assert left(run, now, site) is None, what


def test_each_return_that_did_not_last_makes_the_next_one_wait_twice_as_long() -> None:
    now = NOON + 2 * HOUR
    gone_back = ended(1, NOON - HOUR, NOON, ON_DEMAND, noticed_by=FOR_SPOT)
    here = training(ON_DEMAND, NOON + HOUR, 100, now)
    again = replace(here.attempts[0], generation=2)
    point = replace(here.checkpoints[0], commit=replace(here.checkpoints[0].commit, generation=2))
    run = replace(here, attempts=(gone_back, again), checkpoints=(point,))

    assert left(replace(run, attempts=(again,)), now, SITE) is not None
    assert left(run, now, SITE) is None
    assert left(run, now + timedelta(days=2), SITE) is None  # its checkpoint is old by then
    fresh = replace(point, verdict=Verdict(2, 1, True, "", now + HOUR))
    assert left(replace(run, checkpoints=(fresh,)), now + HOUR, SITE) is not None


# the deadline


def late(spec: Spec, hours: float) -> Spec:
    return replace(spec, deadline_hours=hours)


def test_the_work_is_known_from_the_steps_and_their_pace() -> None:
    now = NOON + 5 * MINUTE + 99 * MINUTE
    run = training(SPOT, NOON, 100, now, saved=60)

    found = work(run, now)

    assert found is not None
    assert (found.done, found.left, found.change) == (60 * MINUTE, 940 * MINUTE, 5 * MINUTE)


def test_until_the_pace_is_known_the_expected_hours_count() -> None:
    assert work(submitted(SPEC), NOON) is None
    found = work(submitted(replace(SPEC, training_hours=7.0)), NOON)

    assert found is not None and (found.done, found.left) == (timedelta(0), 7 * HOUR)


def test_with_a_deadline_and_unknown_work_no_time_is_lost() -> None:
    assert markets(submitted(late(SPEC, 9)), NOON) == ["spot", "on-demand"]


def test_a_spot_machine_is_left_for_on_demand_at_the_last_moment_and_not_before() -> None:
    now = NOON + 5 * MINUTE + 99 * MINUTE  # 100 of 1,000 steps, one a minute: 15 hours are left
    tight, easy = late(SPEC, 17.3), late(SPEC, 40)

    found = left(training(SPOT, NOON, 100, now, tight), now, SITE)

    assert found is not None and found.by == FOR_ON_DEMAND and "15.0 h of training are left" in found.why
    assert left(training(SPOT, NOON, 100, now, easy), now, SITE) is None


def test_on_demand_is_kept_while_the_deadline_needs_it() -> None:
    now = NOON + 5 * MINUTE + 99 * MINUTE

    assert left(training(ON_DEMAND, NOON, 100, now, late(SPEC, 17.5)), now, SITE) is None
    assert left(training(ON_DEMAND, NOON, 100, now, late(SPEC, 60)), now, SITE) is not None


def test_a_run_that_is_in_time_waits_for_spot_and_one_that_is_late_does_not() -> None:
    now = NOON + 5 * MINUTE + 99 * MINUTE
    lost = training(SPOT, NOON, 100, now, late(SPEC, 40))
    lost = replace(lost, attempts=(replace(lost.attempts[0], state=AttemptState.ENDED, noticed_at=now, ended_at=now),))

    assert markets(lost, now) == ["spot"]
    assert markets(lost, NOON + 15 * HOUR) == ["spot", "on-demand"]
    assert markets(lost, NOON + 39 * HOUR) == ["on-demand", "spot"]
    judged = in_time(lost, now, SITE)
    assert judged is not None and judged.until is not None and now < judged.until < NOON + 15 * HOUR


# the spec


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"on_demand_after_s": 60}, "on_demand_after_s needs on_demand: true"),
        ({"on_demand_after_losses": 2}, "on_demand_after_losses needs on_demand: true"),
        ({"deadline_hours": 5}, "deadline needs on_demand: true"),
        ({"on_demand": True, "on_demand_after_s": -1}, "on_demand_after_s must be from 0"),
        ({"on_demand": True, "on_demand_after_losses": 0}, "on_demand_after_losses must be above zero"),
        ({"on_demand": True, "deadline": "tomorrow"}, "'tomorrow' is no time with an offset"),
        ({"on_demand": True, "deadline": "2026-11-30T18:00:00"}, "is no time with an offset"),
        ({"on_demand": True, "deadline": "2026-11-30T18:00:00Z", "deadline_hours": 5}, "exclude each other"),
        ({"on_demand": True, "deadline_hours": 300}, "beyond limits.max_hours"),
    ],
)
def test_rules_that_cannot_work_are_named(keys: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_spec({"command": ["train"], "instance_types": ["g5.xlarge"], **keys})


def test_a_deadline_is_a_time_or_hours_from_the_submission() -> None:
    at = replace(SPEC, deadline="2026-01-06T13:00:00+01:00")

    assert at.deadline_after(NOON) == NOON + 24 * HOUR == replace(SPEC, deadline_hours=24.0).deadline_after(NOON)
    assert SPEC.deadline_after(NOON) is None


# capacity that is paid for already

BOUGHT = (
    Reservation("cr-0123456789abcdef0", "eu-west-1b", "p5.48xlarge"),
    Reservation("cr-0fedcba9876543210", "eu-west-1a", "p5.48xlarge", block=True),
)


def test_reservations_are_asked_first_in_their_order_and_each_by_itself() -> None:
    run = submitted(replace(SPEC, capacity_reservations=BOUGHT))

    assert markets(run, NOON) == ["reserved+capacity-block", "spot+on-demand"]
    first = decide(run, NOON, SITE)
    assert isinstance(first, Reserve) and [p.reservation for p in first.rung.pools] == ["cr-0123456789abcdef0"]
    full = Refusal(first.rung.pools[0], FailureScope.POOL, "ReservationCapacityExceeded", "", NOON)
    second = decide(replace(run, refusals=(full,)), NOON, SITE)
    assert isinstance(second, Reserve) and second.rung.pools[0].market == "capacity-block"
    both = (full, replace(full, pool=second.rung.pools[0]))
    third = decide(replace(run, refusals=both), NOON, SITE)
    assert isinstance(third, Reserve) and third.rung.pools[0].market == "spot"


def test_a_reservation_counts_no_dollars_and_is_never_left_for_spot() -> None:
    now = NOON + 2 * HOUR
    pool = Pool("eu-west-1", "eu-west-1b", "p5.48xlarge", "reserved", BOUGHT[0].id)
    run = training(pool, NOON, 100, now, replace(SPEC, capacity_reservations=BOUGHT))

    assert price_of(pool, SPEC.limits, None) == 0.0
    assert left(run, now, SITE) is None and not may_return(run)


@pytest.mark.parametrize("wrong", [{"id": "cr-1"}, {"zone": "eu-west-1"}, {"instance_type": "big"}])
def test_a_reservation_that_cannot_be_one_is_named(wrong: dict[str, str]) -> None:
    good = {"id": "cr-0123456789abcdef0", "zone": "eu-west-1a", "instance_type": "p5.48xlarge"}

    with pytest.raises(InvalidInput, match="capacity_reservations"):
        parse_spec({"command": ["t"], "instance_types": ["g5.xlarge"], "capacity_reservations": [{**good, **wrong}]})
