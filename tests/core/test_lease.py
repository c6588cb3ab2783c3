from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.errors import Fenced, LeaseHeld
from spotrelay.core.lease import Lease, fence, may_commit, release, take

generations = st.integers(1, 6)
moves = st.lists(st.tuples(st.sampled_from(["take", "release", "fence"]), generations), max_size=25)


def holder(generation: int) -> str:
    return f"i-{generation:017x}"


def play(lease: Lease, move: str, generation: int) -> Lease:
    try:
        match move:
            case "take":
                return take(lease, generation, holder(generation))
            case "release":
                return release(lease, generation, holder(generation))
            case _:
                return fence(lease, generation)
    except (Fenced, LeaseHeld):
        return lease


@given(history=moves)
def test_at_most_one_attempt_may_commit_and_never_one_that_was_replaced(history: list[tuple[str, int]]) -> None:
    lease = Lease("run-1")
    newest = 0
    for move, generation in history:
        lease = play(lease, move, generation)
        allowed = [g for g in range(1, 8) if may_commit(lease, g, holder(g))]
        assert len(allowed) <= 1
        assert all(g >= newest for g in allowed)
        newest = max([newest, *allowed])


@given(history=moves)
def test_floor_and_generation_only_grow(history: list[tuple[str, int]]) -> None:
    lease = Lease("run-1")
    for move, generation in history:
        after = play(lease, move, generation)
        assert after.floor >= lease.floor and after.generation >= lease.generation
        lease = after


def test_the_next_attempt_waits_until_the_lease_is_given_back() -> None:
    held = take(Lease("run-1"), 1, holder(1))

    with pytest.raises(LeaseHeld):
        take(held, 2, holder(2))

    assert take(release(held, 1, holder(1)), 2, holder(2)).holder == holder(2)


def test_an_attempt_that_gave_its_lease_back_does_not_get_it_again() -> None:
    released = release(take(Lease("run-1"), 1, holder(1)), 1, holder(1))

    with pytest.raises(Fenced):
        take(released, 1, holder(1))


def test_taking_ones_own_lease_again_changes_nothing() -> None:
    held = take(Lease("run-1"), 1, holder(1))

    assert take(held, 1, holder(1)) == held


def test_an_attempt_below_the_floor_never_gets_the_lease() -> None:
    with pytest.raises(Fenced):
        take(fence(Lease("run-1"), 3), 2, holder(2))
