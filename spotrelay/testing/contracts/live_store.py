"""What every `LiveStore` must do."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from spotrelay.core.checkpoint import CheckpointId, Commit, Health, SaveReason, Verdict, resume_candidate
from spotrelay.core.errors import AlreadyExists, Fenced, InvalidInput, LeaseHeld, Missing, Retired, UnknownRun
from spotrelay.core.lease import Lease
from spotrelay.core.live import ASK_DRAIN, ASK_STACKS, ExitReport
from spotrelay.testing.contracts.race import LINE_S, RACERS, of_kind, persistent, race
from spotrelay.testing.contracts.samples import NOON, Stores, new_beat, new_commit, new_id, new_run


class LiveStoreContract:
    """Inherit, and give it `stores`: empty for each test, both sides over one state."""

    @pytest.fixture
    def stores(self) -> Stores:
        """The implementation under test."""
        raise NotImplementedError("give the suite its stores")

    @pytest.fixture
    def rounds(self) -> int:
        """How often each race is run."""
        return 10

    @pytest.fixture
    def run_id(self, stores: Stores) -> str:
        """A run that was just created."""
        run = new_run()
        stores.runs.create(run)
        return run.run_id

    def test_a_free_lease_is_taken_and_taking_it_again_changes_nothing(self, stores: Stores, run_id: str) -> None:
        taken = stores.live.take_lease(run_id, 1, "i-1")

        assert taken == Lease(run_id, 1, "i-1")
        assert stores.live.take_lease(run_id, 1, "i-1") == taken
        assert stores.live.read_lease(run_id) == taken

    def test_a_held_lease_makes_the_next_attempt_wait(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")

        with pytest.raises(LeaseHeld):
            stores.live.take_lease(run_id, 2, "i-2")

        assert stores.live.read_lease(run_id).holder == "i-1"

    def test_a_released_lease_goes_to_the_next_attempt_and_never_back(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.release_lease(run_id, 1, "i-1")

        with pytest.raises(Fenced):
            stores.live.take_lease(run_id, 1, "i-1")
        assert stores.live.take_lease(run_id, 2, "i-2") == Lease(run_id, 2, "i-2")
        with pytest.raises(Fenced):
            stores.live.take_lease(run_id, 1, "i-1")

    def test_two_machines_never_share_a_generation(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")

        with pytest.raises(Fenced):
            stores.live.take_lease(run_id, 1, "i-other")

    def test_a_fenced_attempt_cannot_take_the_lease(self, stores: Stores, run_id: str) -> None:
        stores.runs.fence(run_id, 2)

        with pytest.raises(Fenced):
            stores.live.take_lease(run_id, 1, "i-1")

        assert stores.live.take_lease(run_id, 2, "i-2").held

    def test_a_fence_lets_the_next_attempt_in_over_a_holder_that_never_released(
        self, stores: Stores, run_id: str
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.runs.fence(run_id, 2)

        assert stores.live.take_lease(run_id, 2, "i-2").holder == "i-2"

    def test_only_the_holder_releases_and_repeating_it_is_harmless(self, stores: Stores, run_id: str) -> None:
        held = stores.live.take_lease(run_id, 2, "i-2")

        stores.live.release_lease(run_id, 1, "i-1")
        stores.live.release_lease(run_id, 2, "i-other")
        assert stores.live.read_lease(run_id) == held

        stores.live.release_lease(run_id, 2, "i-2")
        stores.live.release_lease(run_id, 2, "i-2")
        assert stores.live.read_lease(run_id) == replace(held, holder=None)

    def test_a_run_that_nobody_created_is_unknown(self, stores: Stores) -> None:
        run_id = new_id()

        for attempt in (
            lambda: stores.live.read_run(run_id),
            lambda: stores.live.read_lease(run_id),
            lambda: stores.live.take_lease(run_id, 1, "i-1"),
            lambda: stores.live.release_lease(run_id, 1, "i-1"),
            lambda: stores.live.commit(new_commit(run_id, 1, 1), "i-1"),
            lambda: stores.live.promote(run_id, CheckpointId(1, 1), "i-1"),
        ):
            with pytest.raises(UnknownRun):
                attempt()

    def test_an_attempt_reads_the_run_as_the_control_plane_does(self, stores: Stores, run_id: str) -> None:
        assert stores.live.read_run(run_id) == stores.runs.load(run_id)

    def test_a_commit_of_the_holder_exists_and_counts(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        commit = new_commit(run_id, 1, 1)

        stores.live.commit(commit, "i-1")

        (checkpoint,) = stores.live.checkpoints(run_id)
        assert checkpoint.commit == commit
        assert checkpoint.pending
        assert stores.live.read_lease(run_id).save == 1

    @pytest.mark.parametrize("loss", ["never held", "released", "fenced", "another machine"])
    def test_a_commit_without_the_lease_is_refused_and_leaves_nothing(
        self, stores: Stores, run_id: str, loss: str
    ) -> None:
        holder = "i-1"
        if loss != "never held":
            stores.live.take_lease(run_id, 1, "i-1")
        if loss == "released":
            stores.live.release_lease(run_id, 1, "i-1")
        if loss == "fenced":
            stores.runs.fence(run_id, 2)
        if loss == "another machine":
            holder = "i-other"

        with pytest.raises(Fenced):
            stores.live.commit(new_commit(run_id, 1, 1), holder)

        assert stores.live.checkpoints(run_id) == ()

    def test_a_commit_sent_again_succeeds_and_stays_single(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        commit = new_commit(run_id, 1, 1)

        stores.live.commit(commit, "i-1")
        stores.live.commit(commit, "i-1")

        assert len(stores.live.checkpoints(run_id)) == 1

    def test_a_commit_sent_again_succeeds_even_when_the_lease_is_long_gone(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        commit = new_commit(run_id, 1, 1)
        stores.live.commit(commit, "i-1")
        stores.runs.fence(run_id, 2)
        stores.live.take_lease(run_id, 2, "i-2")
        stores.live.commit(new_commit(run_id, 2, 1), "i-2")

        stores.live.commit(commit, "i-1")

        assert [str(checkpoint.id) for checkpoint in stores.live.checkpoints(run_id)] == ["2.1", "1.1"]

    def test_another_checkpoint_under_the_same_save_is_refused(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        first = new_commit(run_id, 1, 1)
        stores.live.commit(first, "i-1")

        with pytest.raises(AlreadyExists):
            stores.live.commit(replace(first, step=first.step + 1), "i-1")

        assert [checkpoint.commit for checkpoint in stores.live.checkpoints(run_id)] == [first]

    def test_saves_may_leave_gaps_and_never_go_back(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 3), "i-1")

        with pytest.raises(AlreadyExists):
            stores.live.commit(new_commit(run_id, 1, 2), "i-1")

        assert stores.live.read_lease(run_id).save == 3

    def test_a_new_generation_counts_its_saves_from_1(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 5), "i-1")
        stores.live.release_lease(run_id, 1, "i-1")

        assert stores.live.take_lease(run_id, 2, "i-2").save == 0
        stores.live.commit(new_commit(run_id, 2, 1), "i-2")

        assert [str(checkpoint.id) for checkpoint in stores.live.checkpoints(run_id)] == ["2.1", "1.5"]

    def test_checkpoints_come_newest_first_as_many_as_asked_for(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        for save in range(1, 13):
            stores.live.commit(new_commit(run_id, 1, save), "i-1")
        stores.runs.record_verdict(run_id, Verdict(1, 10, True))
        stores.runs.record_verdict(run_id, Verdict(1, 1, False, "old"))

        newest = stores.live.checkpoints(run_id, limit=4)

        assert [checkpoint.id.save for checkpoint in newest] == [12, 11, 10, 9]
        assert [checkpoint.verified for checkpoint in newest] == [False, False, True, False]

    def test_a_promotion_shows_with_its_checkpoint_and_repeating_it_changes_nothing(
        self, stores: Stores, run_id: str
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        for save in (1, 2):
            stores.live.commit(new_commit(run_id, 1, save), "i-1")

        stores.live.promote(run_id, CheckpointId(1, 1), "i-1")
        stores.live.promote(run_id, CheckpointId(1, 1), "i-1")

        newest, oldest = stores.live.checkpoints(run_id)
        assert (newest.promoted, oldest.promoted) == (False, True)
        assert stores.runs.load(run_id).checkpoints == (newest, oldest)
        assert oldest.commit == new_commit(run_id, 1, 1)

    def test_a_promoted_checkpoint_keeps_its_commit_and_its_verdict(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        commit = new_commit(run_id, 1, 1)
        stores.live.commit(commit, "i-1")
        stores.runs.record_verdict(run_id, Verdict(1, 1, True))
        stores.live.promote(run_id, commit.id, "i-1")

        stores.live.commit(commit, "i-1")

        (checkpoint,) = stores.live.checkpoints(run_id)
        assert (checkpoint.commit, checkpoint.verified, checkpoint.promoted) == (commit, True, True)

    def test_the_next_attempt_promotes_what_it_resumed_from(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        stores.live.release_lease(run_id, 1, "i-1")
        stores.live.take_lease(run_id, 2, "i-2")

        stores.live.promote(run_id, CheckpointId(1, 1), "i-2")

        assert stores.live.checkpoints(run_id)[0].promoted

    @pytest.mark.parametrize("loss", ["released", "fenced", "another machine"])
    def test_a_promotion_without_the_lease_is_refused_and_leaves_nothing(
        self, stores: Stores, run_id: str, loss: str
    ) -> None:
        holder = "i-other" if loss == "another machine" else "i-1"
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        if loss == "released":
            stores.live.release_lease(run_id, 1, "i-1")
        if loss == "fenced":
            stores.runs.fence(run_id, 2)

        with pytest.raises(Fenced):
            stores.live.promote(run_id, CheckpointId(1, 1), holder)

        assert not stores.live.checkpoints(run_id)[0].promoted

    def test_a_promotion_sent_again_succeeds_even_when_the_lease_is_gone(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        stores.live.promote(run_id, CheckpointId(1, 1), "i-1")
        stores.runs.fence(run_id, 2)

        stores.live.promote(run_id, CheckpointId(1, 1), "i-1")

        assert stores.live.checkpoints(run_id)[0].promoted

    @pytest.mark.parametrize(
        "flaw", [{"reason": SaveReason.NOTICE}, {"health": Health.SUSPECT}, {"health": Health.BAD}]
    )
    def test_what_was_taken_in_a_notice_or_is_not_healthy_is_never_promoted(
        self, stores: Stores, run_id: str, flaw: dict[str, Any]
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(replace(new_commit(run_id, 1, 1), **flaw), "i-1")

        with pytest.raises(InvalidInput):
            stores.live.promote(run_id, CheckpointId(1, 1), "i-1")

        assert not stores.live.checkpoints(run_id)[0].promoted

    def test_a_checkpoint_that_was_never_committed_is_not_promoted_into_being(
        self, stores: Stores, run_id: str
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")

        with pytest.raises(Missing):
            stores.live.promote(run_id, CheckpointId(1, 1), "i-1")

        assert stores.live.checkpoints(run_id) == ()

    def test_a_commit_may_build_on_what_is_there(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        for save in (1, 2):
            stores.live.commit(new_commit(run_id, 1, save), "i-1")
        built = replace(new_commit(run_id, 1, 3), builds_on=(CheckpointId(1, 2), CheckpointId(1, 1)))

        stores.live.commit(built, "i-1")

        assert stores.live.checkpoints(run_id)[0].commit == built

    @pytest.mark.parametrize("base", ["retired", "forgotten", "never committed"])
    def test_a_commit_that_builds_on_what_may_not_be_used_is_refused_and_leaves_nothing(
        self, stores: Stores, run_id: str, base: str
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        for save in (1, 2):
            stores.live.commit(new_commit(run_id, 1, save), "i-1")
        there = stores.live.checkpoints(run_id)[1]
        if base != "never committed":
            stores.runs.retire(run_id, there, NOON)
        if base == "forgotten":
            stores.runs.forget(run_id, there.id)
        on = CheckpointId(1, 9) if base == "never committed" else there.id

        with pytest.raises(Retired):
            stores.live.commit(replace(new_commit(run_id, 1, 3), builds_on=(CheckpointId(1, 2), on)), "i-1")

        assert stores.live.checkpoints(run_id)[0].id == CheckpointId(1, 2)
        assert stores.live.read_lease(run_id).save == 2
        stores.live.commit(new_commit(run_id, 1, 3), "i-1")

    def test_a_commit_sent_again_after_what_it_builds_on_was_retired_is_told_truthfully(
        self, stores: Stores, run_id: str
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        built = replace(new_commit(run_id, 1, 2), builds_on=(CheckpointId(1, 1),))
        stores.live.commit(built, "i-1")
        stores.runs.retire(run_id, stores.live.checkpoints(run_id)[1], NOON)

        stores.live.commit(built, "i-1")

        assert stores.live.checkpoints(run_id)[0].commit == built

    def test_a_retired_checkpoint_is_never_promoted(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        stores.runs.retire(run_id, stores.live.checkpoints(run_id)[0], NOON)

        with pytest.raises(Retired):
            stores.live.promote(run_id, CheckpointId(1, 1), "i-1")

        assert not stores.live.checkpoints(run_id)[0].promoted

    def test_of_a_promotion_and_a_retirement_at_the_same_moment_one_wins(
        self, stores: Stores, run_id: str, rounds: int
    ) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        for save in range(1, rounds + 1):
            stores.live.commit(new_commit(run_id, 1, save), "i-1")
            read = stores.live.checkpoints(run_id, limit=1)[0]

            promoted, retired = race(
                [
                    lambda c=read: persistent(lambda: stores.live.promote(run_id, c.id, "i-1")),  # type: ignore[misc]
                    lambda c=read: persistent(lambda: stores.runs.retire(run_id, c, NOON)),  # type: ignore[misc]
                ]
            )

            found = stores.live.checkpoints(run_id, limit=1)[0]
            assert found.promoted is not found.retired
            assert (promoted is None, retired) == (found.promoted, found.retired)

    def test_a_streak_of_bad_checkpoints_hides_no_good_one(self, stores: Stores, run_id: str) -> None:
        stores.live.take_lease(run_id, 1, "i-1")
        stores.live.commit(new_commit(run_id, 1, 1), "i-1")
        stores.runs.record_verdict(run_id, Verdict(1, 1, ok=True))
        for save in range(2, 25):
            stores.live.commit(replace(new_commit(run_id, 1, save), health=Health.BAD), "i-1")

        found = resume_candidate(stores.runs.load(run_id).checkpoints)

        assert found is not None and str(found.id) == "1.1"

    def test_the_newest_heartbeat_of_an_attempt_replaces_the_one_before(self, stores: Stores, run_id: str) -> None:
        for counter in (1, 2, 3):
            stores.live.beat(new_beat(run_id, 1, counter))

        assert stores.runs.load(run_id).heartbeats == (new_beat(run_id, 1, 3),)

    def test_a_word_for_an_attempt_comes_back_with_its_heartbeats(self, stores: Stores, run_id: str) -> None:
        assert stores.live.beat(new_beat(run_id, 1, 1)) == ""

        stores.runs.ask(run_id, 1, ASK_STACKS)
        stores.runs.ask(run_id, 1, ASK_DRAIN)

        assert [stores.live.beat(new_beat(run_id, 1, counter)) for counter in (2, 3)] == [ASK_DRAIN] * 2
        assert stores.live.beat(new_beat(run_id, 2, 1)) == "", "it was asked of another attempt"
        assert stores.runs.load(run_id).heartbeats == (new_beat(run_id, 2, 1), new_beat(run_id, 1, 3))

    def test_an_attempt_that_never_sent_a_heartbeat_is_asked_nothing(self, stores: Stores, run_id: str) -> None:
        stores.runs.ask(run_id, 1, ASK_DRAIN)

        assert stores.runs.load(run_id).heartbeats == ()
        assert stores.live.beat(new_beat(run_id, 1, 1)) == ""

    def test_the_first_report_of_an_attempt_stays(self, stores: Stores, run_id: str) -> None:
        first = ExitReport(run_id, 1, 1, "program", "Traceback: é\n")

        stores.live.report(first)
        stores.live.report(ExitReport(run_id, 1, 0, "boot"))

        assert stores.runs.load(run_id).reports == (first,)

    def test_of_many_machines_that_want_one_lease_exactly_one_gets_it(
        self, stores: Stores, run_id: str, rounds: int
    ) -> None:
        for generation in range(1, rounds + 1):
            outcomes = race(
                [lambda r=r, g=generation: _take(stores, run_id, g, f"i-{r}") for r in range(RACERS)]  # type: ignore[misc]
            )

            winners = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
            assert len(winners) == 1
            assert of_kind(outcomes, Fenced) == RACERS - 1
            assert stores.live.read_lease(run_id) == winners[0]
            stores.live.release_lease(run_id, generation, str(winners[0].holder))

    def test_of_many_attempts_that_race_for_a_free_lease_one_holds_it_in_the_end(
        self, stores: Stores, run_id: str, rounds: int
    ) -> None:
        for number in range(rounds):
            first = 1 + number * RACERS
            outcomes = race(
                [lambda g=first + r: _take(stores, run_id, g, f"i-{g}") for r in range(RACERS)]  # type: ignore[misc]
            )

            lease = stores.live.read_lease(run_id)
            assert [o for o in outcomes if isinstance(o, Lease)] == [lease]
            stores.runs.fence(run_id, first + RACERS)

    def test_of_many_commits_under_one_save_exactly_one_exists(self, stores: Stores, run_id: str, rounds: int) -> None:
        stores.live.take_lease(run_id, 1, "i-1")

        for save in range(1, rounds + 1):
            commits = [new_commit(run_id, 1, save, step=step) for step in range(RACERS)]
            outcomes = race([lambda c=c: _commit(stores, c, "i-1") for c in commits])  # type: ignore[misc]

            (winner,) = [commit for commit, outcome in zip(commits, outcomes, strict=True) if outcome is None]
            assert of_kind(outcomes, AlreadyExists) == RACERS - 1
            assert stores.live.checkpoints(run_id, limit=1)[0].commit == winner

    def test_after_a_fence_has_returned_no_older_commit_ever_appears(self, stores: Stores, rounds: int) -> None:
        for _ in range(rounds):
            run = new_run()
            stores.runs.create(run)
            stores.live.take_lease(run.run_id, 1, "i-1")
            seen: list[int] = []
            begun = threading.Event()

            def zombie(run_id: str = run.run_id, begun: threading.Event = begun) -> int:
                until = time.monotonic() + LINE_S
                for save in count(1):
                    assert time.monotonic() < until, "never fenced"
                    try:
                        _commit(stores, new_commit(run_id, 1, save), "i-1")
                    except Fenced:
                        begun.set()
                        return save - 1
                    begun.set()
                raise AssertionError("unreachable: saves never end")

            def plane(run_id: str = run.run_id, begun: threading.Event = begun, seen: list[int] = seen) -> int:
                assert begun.wait(LINE_S)
                persistent(lambda: stores.runs.fence(run_id, 2))
                seen.extend(c.id.save for c in stores.live.checkpoints(run_id, limit=10**6))
                _take(stores, run_id, 2, "i-2")
                _commit(stores, new_commit(run_id, 2, 1), "i-2")
                return 0

            committed, _ = race([zombie, plane])

            ids = [checkpoint.id for checkpoint in stores.live.checkpoints(run.run_id, limit=10**6)]
            assert sorted(i.save for i in ids if i.generation == 1) == sorted(seen)
            assert committed == len(seen)
            assert sum(i.generation == 2 for i in ids) == 1


def _take(stores: Stores, run_id: str, generation: int, holder: str) -> Lease:
    return persistent(lambda: stores.live.take_lease(run_id, generation, holder))


def _commit(stores: Stores, commit: Commit, holder: str) -> None:
    persistent(lambda: stores.live.commit(commit, holder))
