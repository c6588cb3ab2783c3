"""Which checkpoints are retired, and up to where a bucket may be tidied."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Commit, Health, SaveReason, Verdict
from spotrelay.core.errors import InvalidInput
from spotrelay.core.lease import LAST_SAVE, Lease, fence, release, settled, take
from spotrelay.core.retention import Upkeep, advanced, superfluous
from spotrelay.core.spec import Keep, parse_spec

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TWO = Keep(newest=2)


def saved(save: int, ok: bool | None = True, generation: int = 1, step: int | None = None) -> Checkpoint:
    """A checkpoint; `ok` is its verdict, None while there is none."""
    commit = Commit("run-1", generation, save, save * 10 if step is None else step, "key", "v", "digest", 1)
    return Checkpoint(commit, None if ok is None else Verdict(generation, save, ok))


def retired(*checkpoints: Checkpoint, keep: Keep = TWO, over: bool = False, in_use: str = "") -> list[str]:
    """Ids of those that the rule retires."""
    return [str(c.id) for c in superfluous(checkpoints, keep, frozenset({in_use} - {""}), over=over)]


def test_the_newest_that_are_whole_stay() -> None:
    assert retired(*(saved(n) for n in (1, 2, 3, 4))) == ["1.1", "1.2"]


def test_what_waits_for_a_verdict_stays_and_does_not_count() -> None:
    assert retired(saved(1), saved(2), saved(3), saved(4, None), saved(5, None)) == ["1.1"]


def test_what_is_older_than_the_one_to_resume_from_waits_for_nothing() -> None:
    assert retired(saved(1, None), saved(2), saved(3)) == ["1.1"]


def test_the_newest_promoted_stays_however_old_it_is() -> None:
    promoted = replace(saved(1), promoted=True)
    earlier = replace(saved(1, generation=1), promoted=True)

    assert retired(promoted, saved(2), saved(3), saved(4)) == ["1.2"]
    assert retired(earlier, replace(saved(2), promoted=True), saved(3), saved(4)) == ["1.1"]


def test_a_condemned_one_and_a_bad_one_are_retired_and_the_newest_commit_is_not() -> None:
    bad = replace(saved(2), commit=replace(saved(2).commit, health=Health.BAD))

    assert retired(saved(1), bad, saved(3, False), saved(4)) == ["1.2", "1.3"]
    assert retired(saved(1), saved(2, False)) == []


def test_however_many_are_condemned_the_last_whole_one_stays() -> None:
    assert retired(saved(1), *(saved(n, False) for n in range(2, 30))) == [f"1.{n}" for n in range(2, 29)]


def test_what_an_attempt_resumed_from_stays_while_it_lives() -> None:
    found = [saved(n) for n in (1, 2, 3, 4)]

    assert retired(*found, in_use="1.1") == ["1.2"]
    assert retired(*found) == ["1.1", "1.2"]


def test_what_is_retired_already_is_not_retired_again_and_does_not_count() -> None:
    gone = replace(saved(4), retired_at=NOON)

    assert retired(saved(1), saved(2), saved(3), gone) == ["1.1"]


def test_the_first_at_or_after_each_multiple_stays_for_good() -> None:
    keep = Keep(1, every_steps=100)
    steps = (0, 60, 100, 130, 210, 260, 330)
    checkpoints = [saved(n, step=step) for n, step in enumerate(steps, 1)]

    gone = retired(*checkpoints, keep=keep)

    kept = {c.commit.step for c in checkpoints if str(c.id) not in gone}
    assert kept == {100, 210, 330}


def test_milestones_are_the_same_whenever_one_looks() -> None:
    keep = Keep(1, every_steps=100)
    whole = [saved(n, step=n * 30) for n in range(1, 21)]
    there: list[Checkpoint] = []

    for checkpoint in whole:
        there.append(checkpoint)
        names = retired(*there, keep=keep)
        there = [c for c in there if str(c.id) not in names]

    assert [c.commit.step for c in there] == [120, 210, 300, 420, 510, 600]


def test_of_a_run_that_is_over_the_last_good_one_stays() -> None:
    final = replace(saved(4), commit=replace(saved(4).commit, reason=SaveReason.FINAL))

    assert retired(saved(1), saved(2), saved(3), final, over=True) == ["1.1", "1.2", "1.3"]
    assert retired(saved(1), saved(2), saved(3, False), over=True) == ["1.1", "1.3"]


def test_of_a_run_that_failed_what_nobody_compared_stays_if_it_is_the_newest() -> None:
    assert retired(saved(1), saved(2, None), saved(3, None), over=True) == ["1.2"]


def back(save: int, to: str, generation: int = 1) -> Checkpoint:
    """The checkpoint after a rollback."""
    found = saved(save, generation=generation)
    return replace(found, commit=replace(found.commit, back_to=to))


def test_what_a_rollback_left_behind_takes_nobodys_place() -> None:
    target = replace(saved(2), promoted=True)
    astray = [replace(saved(n), promoted=True) for n in (3, 4)]

    assert retired(saved(1), target, *astray, back(5, "1.2")) == ["1.1", "1.3", "1.4"]
    assert retired(target, *astray, back(5, "1.2", generation=2), saved(6, generation=2)) == ["1.3", "1.4"]
    assert retired(target, *astray, back(5, "1.2"), over=True) == ["1.3", "1.4"]


def test_what_was_left_behind_hides_no_promoted_one_while_nobody_compared_it() -> None:
    target = replace(saved(1), promoted=True)
    astray = replace(saved(2, None), promoted=True)

    assert retired(target, astray, back(3, "1.1"), saved(4), saved(5)) == ["1.2"]


def test_a_milestone_that_was_left_behind_is_none() -> None:
    keep = Keep(1, every_steps=20)

    assert retired(saved(1), saved(2), saved(3), back(4, "1.1"), saved(5), keep=keep) == ["1.1", "1.2", "1.3"]


@pytest.mark.parametrize("over", [False, True])
def test_who_tells_that_others_were_left_behind_stays_while_one_of_them_is_there(over: bool) -> None:
    keep = Keep(1)
    astray, teller, newest = saved(2), back(3, "1.1"), saved(4)

    assert retired(saved(1), astray, teller, newest, keep=keep, over=over) == ["1.1", "1.2"]
    assert retired(astray, teller, newest, keep=keep, over=over, in_use="1.2") == []
    assert retired(replace(astray, retired_at=NOON), teller, newest, keep=keep, over=over) == ["1.3"]
    assert retired(teller, newest, keep=keep, over=over) == ["1.3"]


def test_one_that_is_retired_still_tells_who_was_left_behind() -> None:
    target = replace(saved(1), promoted=True)
    astray = replace(saved(2), promoted=True)
    teller = replace(back(3, "1.1"), retired_at=NOON, verdict=Verdict(1, 3, False))

    assert retired(target, astray, teller, saved(4)) == ["1.2"]


def test_a_save_is_settled_when_nobody_can_commit_it_any_more() -> None:
    lease = Lease("run-1")
    assert settled(lease) == CheckpointId(0, LAST_SAVE)

    held = replace(take(lease, 1, "i-1"), save=3)
    assert settled(held) == CheckpointId(1, 3)
    assert settled(release(held, 1, "i-1")) == CheckpointId(1, LAST_SAVE)
    assert settled(fence(held, 5)) == CheckpointId(4, LAST_SAVE)
    assert settled(take(fence(held, 2), 2, "i-2")) == CheckpointId(2, 0)


def test_a_save_counts_as_settled_only_after_a_whole_grace() -> None:
    first = advanced(Upkeep(), CheckpointId(1, 3), NOON, HOUR)
    early = advanced(first, CheckpointId(1, 5), NOON + HOUR / 2, HOUR)
    late = advanced(early, CheckpointId(1, 9), NOON + HOUR, HOUR)

    assert (first.settled, early) == ("", first)
    assert (late.settled, late.settling, late.since) == ("1.3", "1.9", NOON + HOUR)


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"newest": 0}, "keep.newest must be above zero"),
        ({"newest": 1000}, "keep.newest must not be above 100"),
        ({"every_steps": 0}, "keep.every_steps must be above zero"),
        ({"newest": "3"}, "spec.keep.newest: '3' is not a whole number"),
        ({"every": 100}, "unknown key: keep.every "),
    ],
)
def test_a_wish_that_cannot_be_kept_is_told_by_name(keep: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec({"command": ["train"], "instance_types": ["g5.xlarge"], "keep": keep})

    assert said in str(refused.value)
