"""Survivors of a gang wait for new machines in their zone, for a bounded time; then the whole gang moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from spotrelay.core.claim import claim
from spotrelay.core.decide import decide, spent
from spotrelay.core.decisions import Decision, Fence, Reserve, Send, Terminate, Wait
from spotrelay.core.facts import CancelRequested, LaunchAnswered, TerminateAsked
from spotrelay.core.lease import Lease
from spotrelay.core.lifecycle import machines_so_far
from spotrelay.core.live import EXIT_DRAINED, Heartbeat, Phase
from spotrelay.core.notice import InstanceState, StateChange
from spotrelay.core.placement import FailureScope, Refusal
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.record import absorb, record
from spotrelay.core.reunion import reunion
from spotrelay.core.room import room_left, size_of_one
from spotrelay.core.run import AttemptState, Run
from spotrelay.core.spec import Limits
from tests.core.test_decide import MINUTE, NOON, POOL, SITE
from tests.core.test_gangs import FIRST, GANG, SECOND, THIRD, given, notice, reported, training

FOURTH = "i-00000000000000004"
SECOND_LATER = timedelta(seconds=1)
REFUSED = Refusal(POOL, FailureScope.POOL, "InsufficientInstanceCapacity", "none", NOON)


def broken(**more: object) -> Run:
    """A gang that trained until its last machine was lost; the survivors cannot commit any more."""
    run = record(training(**more), StateChange(THIRD, InstanceState.TERMINATED), NOON, SITE)
    return replace(run, lease=Lease("run-1", 1, None, 2))


def sent(run: Run, now: datetime = NOON) -> tuple[Run, Decision]:
    """The next launch, sent; and what was reserved."""
    decision = decide(run, now, SITE)
    assert isinstance(decision, Reserve), decision
    run = claim(run, decision, now, SITE)
    send = decide(run, now, SITE)
    assert isinstance(send, Send)
    return claim(run, send, now, SITE), decision


def answered(run: Run, *machines: str, now: datetime = NOON, refusals: tuple[Refusal, ...] = ()) -> Run:
    first, others = (machines[0], machines[1:]) if machines else (None, ())
    answer = LaunchAnswer(first, POOL if machines else None, refusals, tuple(others))
    return record(run, LaunchAnswered(run.launches, answer), now, SITE)


def test_for_survivors_only_the_missing_machines_are_asked_for_in_their_own_pool() -> None:
    _, decision = sent(broken())

    assert isinstance(decision, Reserve)
    assert (decision.generation, decision.rung.pools, decision.rung.nodes) == (2, (POOL,), 1)
    assert decision.rung.keeps == (FIRST, SECOND)
    assert decision.rung.placement_group == "close"


def test_the_survivors_come_first_in_the_next_attempt_and_leave_the_one_before() -> None:
    run = answered(sent(broken())[0], FOURTH)

    before, after = run.attempts
    assert after.instance_ids == (FIRST, SECOND, FOURTH)
    assert after.state is AttemptState.BOOTING
    assert not before.live
    assert run.attempt_on(FIRST) == after
    assert not isinstance(decide(run, NOON, SITE), Terminate)


def test_no_machine_is_paid_for_twice() -> None:
    run = answered(sent(broken(price=2.0))[0], FOURTH)
    run = replace(run, attempts=(run.attempts[0], replace(run.attempts[1], price=2.0)))

    assert spent(run, NOON + 60 * MINUTE) == pytest.approx(3 * 2.0)


def test_a_noticed_gang_drains_while_the_machine_in_its_place_is_sought_and_nobody_is_ended() -> None:
    run = record(training(), notice(SECOND), NOON, SITE)
    run, decision = sent(run)
    assert isinstance(decision, Reserve)
    assert (decision.rung.nodes, decision.rung.keeps) == (1, (FIRST, THIRD))

    run = reported(run, 0, EXIT_DRAINED)

    assert isinstance(decide(run, NOON + SECOND_LATER, SITE), Wait)
    run = answered(run, FOURTH)
    assert run.attempts[1].instance_ids == (FIRST, THIRD, FOURTH)
    assert [m.instance_id for m in run.attempts[0].machines if m.live] == [SECOND]


def test_when_the_zone_refuses_it_is_asked_again_until_the_bound_and_the_survivors_stay() -> None:
    run = answered(sent(broken())[0], refusals=(REFUSED,))

    early = decide(run, NOON + SECOND_LATER, SITE)
    again = decide(run, NOON + SITE.timings.backoff, SITE)

    assert isinstance(early, Wait)
    assert isinstance(again, Reserve)
    assert (again.generation, again.launch, again.rung.keeps) == (2, 3, (FIRST, SECOND))


def test_after_the_bound_the_survivors_are_ended_and_the_whole_gang_moves() -> None:
    run = answered(sent(broken())[0], refusals=(REFUSED,))
    late = NOON + 2 * MINUTE

    decision = decide(run, late, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, SECOND)
    for machine in decision.instance_ids:
        run = record(run, TerminateAsked(machine), late, SITE)
    moving = decide(run, late, SITE)
    assert isinstance(moving, Reserve)
    assert (moving.generation, moving.rung.nodes, moving.rung.keeps) == (2, 3, ())
    assert POOL not in moving.rung.pools


def test_survivors_are_kept_past_the_bound_while_a_launch_for_them_is_open() -> None:
    run, _ = sent(broken())

    assert not isinstance(decide(run, NOON + 10 * MINUTE, SITE), Terminate)


def test_a_survivor_that_is_lost_before_the_answer_makes_the_next_gang_incomplete_and_all_of_it_ends() -> None:
    run, _ = sent(broken())
    run = record(run, StateChange(SECOND, InstanceState.TERMINATED), NOON, SITE)
    run = answered(run, FOURTH)

    assert run.attempts[1].over
    assert run.attempts[1].instance_ids == (FIRST, FOURTH)
    run = replace(run, lease=Lease("run-1", 1, None, 3))
    decision = decide(run, NOON, SITE)
    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, FOURTH)


def test_a_survivor_that_gets_a_notice_while_it_waits_is_no_survivor() -> None:
    run = record(broken(), notice(FIRST), NOON, SITE)

    _, decision = sent(run)

    assert isinstance(decision, Reserve)
    assert (decision.rung.nodes, decision.rung.keeps) == (2, (SECOND,))


def test_a_gang_whose_program_failed_is_not_kept() -> None:
    run = broken()
    run = replace(run, attempts=(replace(run.attempts[0], crashed=True),))

    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, SECOND)


def test_a_gang_that_never_trained_is_not_kept() -> None:
    run = given(FIRST, SECOND, THIRD)
    beats = tuple(Heartbeat("run-1", 1, 1, Phase.SETUP, node=node) for node in (2, 1, 0))
    run = absorb(replace(run, heartbeats=beats), NOON, SITE)
    run = record(run, StateChange(THIRD, InstanceState.TERMINATED), NOON, SITE)
    assert isinstance(decide(run, NOON, SITE), Fence)

    decision = decide(replace(run, lease=Lease("run-1", 0, None, 2)), NOON, SITE)

    assert isinstance(decision, Terminate)


def test_who_says_zero_has_the_gang_move_at_once() -> None:
    run = broken(spec=replace(GANG, reunion_s=0.0))

    assert isinstance(decide(run, NOON, SITE), Terminate)


def test_a_cancelled_run_keeps_nobody() -> None:
    run = record(broken(), CancelRequested("enough"), NOON, SITE)

    assert isinstance(decide(run, NOON, SITE), Terminate)


def test_the_launch_limit_counts_a_machine_once_that_serves_two_attempts() -> None:
    run, decision = sent(broken(spec=replace(GANG, limits=Limits(max_launches=4))))

    assert isinstance(decision, Reserve)
    run = answered(run, FOURTH)
    assert len({each for attempt in run.attempts for each in attempt.instance_ids}) == 4


def test_a_quota_that_is_reached_ends_the_waiting() -> None:
    quota = replace(REFUSED, scope=FailureScope.QUOTA, code="MaxSpotInstanceCountExceeded")
    run = answered(sent(broken())[0], refusals=(quota,))

    decision = decide(run, NOON + SECOND_LATER, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, SECOND)


def crowded(nodes: int, most: int) -> Run:
    """A run of so many nodes that has been reunited until its row has room for whole gangs alone."""
    spec = replace(GANG, nodes=nodes, limits=Limits(max_launches=most))
    names = [f"i-{number:017x}" for number in range(1, most + nodes)]
    run = given(*names[:nodes], spec=spec)
    beats = tuple(Heartbeat("run-1", 1, 1, Phase.TRAINING, node=node) for node in range(nodes))
    first = absorb(replace(run, lease=Lease("run-1", 1, names[0]), heartbeats=beats), NOON, SITE).attempts[0]
    attempts = [first]
    for generation in range(2, most - nodes + 2):
        members = tuple(replace(m, machine_gone_at=NOON) for m in attempts[-1].members)
        fresh = replace(members[-1], instance_id=names[nodes + generation - 2], machine_gone_at=None)
        staying = tuple(replace(m, machine_gone_at=None) for m in members[:-1])
        attempts[-1] = replace(attempts[-1], members=members, state=AttemptState.ENDED, machine_gone_at=NOON)
        attempts.append(replace(first, generation=generation, members=(*staying, fresh)))
        run = replace(run, attempts=tuple(attempts))
        last = members_lost(run, names[nodes + generation - 2])
        if reunion(last, NOON, SITE) is None:
            return last
    return last


def members_lost(run: Run, instance_id: str) -> Run:
    return record(run, StateChange(instance_id, InstanceState.TERMINATED), NOON, SITE)


@pytest.mark.parametrize(("nodes", "most"), [(2, 400), (32, 400), (32, 100)])
def test_a_run_is_reunited_only_as_long_as_its_row_has_room(nodes: int, most: int) -> None:
    run = crowded(nodes, most)

    assert reunion(run, NOON, SITE) is None
    assert len(run.attempts) > most // nodes / 2
    assert (most - machines_so_far(run)) / nodes * size_of_one(run) <= room_left(run), "every gang still fits"
    assert size_of_one(run) * (1 + (most - machines_so_far(run)) / nodes) > room_left(run)


def test_with_the_limits_that_a_spec_has_by_itself_a_pair_may_always_be_reunited() -> None:
    run = crowded(2, 100)

    assert len(run.attempts) == 99
