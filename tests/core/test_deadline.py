"""How urgent a deadline is, worked out by hand and for work that was drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.deadline import LOOKS, MARGIN, Judgement, Urgency, Work, judge, last_moment, line

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
CHANGE = 6 * MINUTE


def judged(done: float, left: float, now: float, deadline: float = 10.0, on_demand: bool = False) -> Judgement:
    """Hours of training done and left, hours since the submission, and until the deadline from there."""
    work = Work(done * HOUR, left * HOUR, CHANGE)
    return judge(work, NOON, NOON + deadline * HOUR, NOON + now * HOUR, on_demand)


def test_a_run_ahead_of_the_line_waits_for_spot_until_the_line_meets_it() -> None:
    found = judged(done=3, left=2, now=2)

    assert found.urgency is Urgency.IN_TIME
    assert found.until is not None and NOON + 5 * HOUR < found.until < NOON + 6 * HOUR
    assert "ahead of even progress" in found.why


def test_a_run_behind_the_line_takes_on_demand_where_spot_has_nothing() -> None:
    found = judged(done=1, left=4, now=4)

    assert found.urgency is Urgency.BEHIND and "behind even progress" in found.why


def test_the_last_moment_leaves_time_for_the_change_and_a_margin() -> None:
    work, deadline = Work(HOUR, 4 * HOUR, CHANGE), NOON + 10 * HOUR

    last = last_moment(work, deadline, on_demand_now=False)

    assert last == deadline - 4 * HOUR * (1 + MARGIN) - CHANGE - LOOKS
    assert judge(work, NOON, deadline, last, False).urgency is Urgency.MUST
    assert judge(work, NOON, deadline, last - MINUTE, False).urgency is Urgency.BEHIND
    assert last_moment(work, deadline, on_demand_now=True) > last


def test_a_deadline_that_cannot_be_met_says_so_and_still_hurries() -> None:
    found = judged(done=0, left=5, now=6)

    assert found.urgency is Urgency.MUST and "cannot be met any more" in found.why


def test_on_demand_is_kept_until_the_run_is_ahead_by_two_changes() -> None:
    """Hysteresis: at the line itself, who is there stays there."""
    work, deadline = Work(3 * HOUR, 2 * HOUR, CHANGE), NOON + 10 * HOUR
    meets = next(n for n in range(600) if line(work, NOON, deadline, NOON + n * MINUTE) >= work.done)
    just_before, well_before = NOON + (meets - 5) * MINUTE, NOON + (meets - 60) * MINUTE

    assert judge(work, NOON, deadline, just_before, False).urgency is Urgency.IN_TIME
    assert judge(work, NOON, deadline, just_before, True).urgency is Urgency.BEHIND
    assert judge(work, NOON, deadline, well_before, True).urgency is Urgency.AHEAD


@given(st.floats(0, 50), st.floats(0.01, 50), st.floats(0, 100), st.floats(0.1, 100), st.booleans())
def test_whoever_need_not_hurry_yet_is_told_when_to_look_again_and_still_makes_it_then(
    done: float, left: float, now: float, deadline: float, on_demand: bool
) -> None:
    found = judged(done, left, now, deadline, on_demand)

    if found.urgency is Urgency.MUST:
        assert found.until is None
        return
    assert found.until is not None
    reached = found.until + left * HOUR + (timedelta(0) if on_demand else CHANGE)
    assert reached <= NOON + deadline * HOUR + timedelta(seconds=1)


@given(st.floats(0.1, 20), st.floats(0, 1), st.floats(20.2, 60))
def test_a_run_that_waits_as_long_as_it_may_and_then_trains_on_on_demand_is_in_time(
    whole: float, share: float, deadline: float
) -> None:
    """The promise, for any work: wait wherever the policy allows it, then never lose the machine again."""
    work = Work(whole * share * HOUR, whole * (1 - share) * HOUR, CHANGE)
    now, end = NOON, NOON + deadline * HOUR
    for _ in range(10):
        found = judge(work, NOON, end, now, False)
        if found.urgency is Urgency.MUST:
            break
        assert found.until is not None
        now = max(found.until, now + timedelta(milliseconds=1))

    assert now + CHANGE + work.left <= end + LOOKS
