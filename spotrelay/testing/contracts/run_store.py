"""What every `RunStore` must do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Verdict
from spotrelay.core.errors import AlreadyExists, LostRace, UnknownRun
from spotrelay.core.lease import Lease
from spotrelay.core.live import ExitReport
from spotrelay.core.ports import RunStore
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus, note
from spotrelay.testing.contracts.race import RACERS, of_kind, persistent, race
from spotrelay.testing.contracts.samples import (
    A_SECOND,
    NOON,
    POOL,
    Stores,
    new_beat,
    new_commit,
    new_id,
    new_run,
    rich_run,
)


def created(stores: Stores, run_id: str | None = None) -> Run:
    """A new run, as it is read back."""
    run = new_run(run_id)
    stores.runs.create(run)
    return stores.runs.load(run.run_id)


def with_machine(run: Run, instance_id: str) -> Run:
    """The run with one attempt on this machine."""
    attempt = Attempt(len(run.attempts) + 1, AttemptState.BOOTING, instance_id, POOL)
    return replace(run, attempts=(*run.attempts, attempt))


class RunStoreContract:
    """Inherit, and give it `stores`: empty for each test, both sides over one state."""

    @pytest.fixture
    def stores(self) -> Stores:
        """The implementation under test."""
        raise NotImplementedError("give the suite its stores")

    @pytest.fixture
    def rounds(self) -> int:
        """How often each race is run."""
        return 10

    def test_a_new_run_waits_at_version_1_and_is_due_at_once(self, stores: Stores) -> None:
        run = new_run()

        stores.runs.create(run)

        loaded = stores.runs.load(run.run_id)
        assert (loaded.version, loaded.status, loaded.due_at) == (1, RunStatus.WAITING, NOON)
        assert loaded.lease == Lease(run.run_id)
        assert stores.runs.due(NOON) == [run.run_id]

    def test_a_new_run_brings_its_first_lines(self, stores: Stores) -> None:
        run = note(new_run(), "submitted", "by hand", NOON)

        stores.runs.create(run)

        assert [entry.kind for entry in stores.runs.timeline(run.run_id)] == ["submitted"]

    def test_an_id_is_taken_once_and_the_first_run_stays(self, stores: Stores) -> None:
        first = created(stores)

        with pytest.raises(AlreadyExists):
            stores.runs.create(replace(new_run(first.run_id), launches=7))

        assert stores.runs.load(first.run_id) == first

    def test_a_run_that_nobody_created_is_unknown(self, stores: Stores) -> None:
        run = replace(new_run(), version=1)

        for attempt in (
            lambda: stores.runs.load(run.run_id),
            lambda: stores.runs.save(run, run),
            lambda: stores.runs.fence(run.run_id, 2),
        ):
            with pytest.raises(UnknownRun):
                attempt()

    def test_every_field_of_a_row_comes_back_as_it_was_saved(self, stores: Stores) -> None:
        before = created(stores)

        saved = stores.runs.save(before, rich_run(before.run_id))

        assert saved == replace(rich_run(before.run_id), version=2)
        assert stores.runs.load(before.run_id) == saved

    def test_a_save_returns_the_next_version_without_news(self, stores: Stores) -> None:
        before = created(stores)

        saved = stores.runs.save(before, note(before, "seen", "something", NOON))

        assert (saved.version, saved.news) == (2, ())

    def test_a_save_from_an_old_version_is_lost_whole(self, stores: Stores) -> None:
        old = created(stores)
        current = stores.runs.save(old, note(replace(old, due_at=None), "first", "", NOON))

        late = note(with_machine(old, "i-00000000000000002"), "late", "", NOON)
        with pytest.raises(LostRace):
            stores.runs.save(old, late)

        assert stores.runs.load(old.run_id) == current
        assert [entry.kind for entry in stores.runs.timeline(old.run_id)] == ["first"]
        assert stores.runs.run_of("i-00000000000000002") is None
        assert stores.runs.due(NOON) == []

    def test_what_was_read_cannot_change_what_is_stored(self, stores: Stores) -> None:
        run = created(stores)

        run.spec.env["SNEAKED"] = "in"

        assert stores.runs.load(run.run_id).spec.env == {}

    def test_the_timeline_keeps_every_line_in_its_order(self, stores: Stores) -> None:
        run = created(stores)

        for start in (0, 150, 155):
            news = run
            for number in range(start, start + (150 if start == 0 else 5)):
                news = note(news, "line", str(number), NOON, 1, number=number)
            run = stores.runs.save(run, news)

        lines = stores.runs.timeline(run.run_id)
        assert [line.text for line in lines] == [str(number) for number in range(160)]
        assert lines[7].data == {"number": 7}

    def test_a_machine_leads_to_its_run_from_the_save_that_names_it(self, stores: Stores) -> None:
        run = created(stores)
        mine, other = f"i-{new_id()}", f"i-{new_id()}"

        stores.runs.save(run, with_machine(run, mine))

        assert stores.runs.run_of(mine) == run.run_id
        assert stores.runs.run_of(other) is None

    def test_the_rows_of_many_machines_are_found_together_and_an_unknown_one_is_left_out(self, stores: Stores) -> None:
        one, other = created(stores), created(stores)
        names = [f"i-{new_id()}" for _ in range(3)]
        one = stores.runs.save(one, with_machine(one, names[0]))
        other = stores.runs.save(other, with_machine(other, names[1]))

        found = stores.runs.owners(names)

        assert found == {names[0]: one, names[1]: other}
        assert stores.runs.owners([]) == {}

    def test_a_run_is_due_from_its_time_on_and_no_longer_once_it_has_none(self, stores: Stores) -> None:
        run = created(stores)

        later = stores.runs.save(run, replace(run, due_at=NOON + A_SECOND))
        assert stores.runs.due(NOON) == []
        assert stores.runs.due(NOON + A_SECOND) == [run.run_id]

        stores.runs.save(later, replace(later, due_at=None))
        assert stores.runs.due(NOON + timedelta(days=365)) == []

    def test_the_longest_overdue_run_comes_first_and_no_more_than_asked_for(self, stores: Stores) -> None:
        runs = [created(stores) for _ in range(12)]
        order = [runs[index] for index in (5, 2, 9, 0, 11, 7, 1, 3, 10, 4, 8, 6)]
        for place, run in enumerate(order):
            stores.runs.save(run, replace(run, due_at=NOON + place * A_SECOND))

        due = stores.runs.due(NOON + timedelta(hours=1), limit=10)

        assert due == [run.run_id for run in order[:10]]

    def test_all_runs_are_listed_newest_first(self, stores: Stores) -> None:
        runs = [new_run(created_at=NOON + index * A_SECOND) for index in (1, 0, 2)]
        for run in runs:
            stores.runs.create(run)

        listed = [run.run_id for run in stores.runs.all_runs()]

        assert listed == [runs[2].run_id, runs[0].run_id, runs[1].run_id]

    def test_a_run_is_loaded_with_what_attempts_wrote_newest_first(self, stores: Stores) -> None:
        run = created(stores)
        for generation in (1, 2):
            stores.live.take_lease(run.run_id, generation, f"i-{generation}")
            stores.live.beat(new_beat(run.run_id, generation, 1))
            stores.live.report(ExitReport(run.run_id, generation, generation, "program"))
            stores.live.commit(new_commit(run.run_id, generation, 1), f"i-{generation}")
            stores.live.release_lease(run.run_id, generation, f"i-{generation}")

        loaded = stores.runs.load(run.run_id)

        assert [beat.generation for beat in loaded.heartbeats] == [2, 1]
        assert [report.generation for report in loaded.reports] == [2, 1]
        assert [str(checkpoint.id) for checkpoint in loaded.checkpoints] == ["2.1", "1.1"]
        assert loaded.lease == Lease(run.run_id, generation=2, holder=None, floor=1, save=1)

    def test_what_attempts_write_never_makes_a_save_fail(self, stores: Stores) -> None:
        run = created(stores)

        stores.live.take_lease(run.run_id, 1, "i-1")
        stores.live.beat(new_beat(run.run_id, 1, 1))
        stores.live.commit(new_commit(run.run_id, 1, 1), "i-1")

        assert stores.runs.save(run, run).version == 2

    def test_a_fence_raises_the_floor_and_empties_an_older_lease(self, stores: Stores) -> None:
        run = created(stores)
        stores.live.take_lease(run.run_id, 1, "i-1")

        fenced = stores.runs.fence(run.run_id, 2)

        assert fenced == Lease(run.run_id, generation=1, holder=None, floor=2)
        assert stores.runs.load(run.run_id).lease == fenced

    def test_a_fence_repeated_or_lower_changes_nothing_and_spares_the_newer_holder(self, stores: Stores) -> None:
        run = created(stores)
        stores.runs.fence(run.run_id, 3)
        held = stores.live.take_lease(run.run_id, 3, "i-3")

        assert stores.runs.fence(run.run_id, 3) == held
        assert stores.runs.fence(run.run_id, 1) == held
        assert stores.live.read_lease(run.run_id) == held

    def test_a_verdict_stands_beside_its_checkpoint(self, stores: Stores) -> None:
        run = created(stores)
        stores.live.take_lease(run.run_id, 1, "i-1")
        for save in (1, 2, 3):
            stores.live.commit(new_commit(run.run_id, 1, save), "i-1")

        stores.runs.record_verdict(run.run_id, Verdict(1, 1, True, checked_at=NOON))
        stores.runs.record_verdict(run.run_id, Verdict(1, 2, False, "shard 0 is missing", NOON))

        newest, middle, oldest = stores.runs.load(run.run_id).checkpoints
        assert (newest.state, middle.state, oldest.state) == ("committed", "condemned", "verified")
        assert middle.verdict is not None and middle.verdict.problem == "shard 0 is missing"
        assert oldest.verdict == Verdict(1, 1, True, checked_at=NOON)

    def test_a_condemned_checkpoint_never_becomes_verified_again(self, stores: Stores) -> None:
        run = created(stores)
        stores.live.take_lease(run.run_id, 1, "i-1")
        stores.live.commit(new_commit(run.run_id, 1, 1), "i-1")

        for verdict in (Verdict(1, 1, True), Verdict(1, 1, False, "gone"), Verdict(1, 1, True)):
            stores.runs.record_verdict(run.run_id, verdict)

        assert stores.runs.load(run.run_id).checkpoints[0].condemned

    def test_a_retired_checkpoint_may_not_be_used_and_the_first_date_stays(self, stores: Stores) -> None:
        run = with_commits(stores, 2)
        newest, oldest = stores.runs.load(run.run_id).checkpoints

        assert stores.runs.retire(run.run_id, oldest, NOON)
        assert stores.runs.retire(run.run_id, oldest, NOON + A_SECOND)

        assert stores.runs.checkpoints(run.run_id) == (newest, replace(oldest, retired_at=NOON))
        assert stores.runs.load(run.run_id).checkpoints == stores.runs.checkpoints(run.run_id)

    def test_a_checkpoint_that_was_promoted_since_it_was_read_is_not_retired(self, stores: Stores) -> None:
        run = with_commits(stores, 1)
        (read,) = stores.runs.checkpoints(run.run_id)
        stores.live.promote(run.run_id, read.id, "i-1")

        assert not stores.runs.retire(run.run_id, read, NOON)

        (promoted,) = stores.runs.checkpoints(run.run_id)
        assert not promoted.retired
        assert stores.runs.retire(run.run_id, promoted, NOON)

    def test_a_condemned_checkpoint_is_retired_whether_or_not_it_was_promoted(self, stores: Stores) -> None:
        run = with_commits(stores, 1)
        (read,) = stores.runs.checkpoints(run.run_id)
        stores.live.promote(run.run_id, read.id, "i-1")

        assert stores.runs.retire(run.run_id, replace(read, verdict=Verdict(1, 1, False, "gone")), NOON)

    def test_what_was_never_committed_is_not_retired_into_being(self, stores: Stores) -> None:
        run = created(stores)

        assert not stores.runs.retire(run.run_id, Checkpoint(new_commit(run.run_id, 1, 1)), NOON)

        assert stores.runs.checkpoints(run.run_id) == ()

    def test_only_a_retired_checkpoint_is_forgotten_with_its_verdict_and_nothing_else(self, stores: Stores) -> None:
        run = with_commits(stores, 3)
        for save in (1, 2, 3):
            stores.runs.record_verdict(run.run_id, Verdict(1, save, True))
        newest, middle, oldest = stores.runs.checkpoints(run.run_id)
        stores.runs.retire(run.run_id, middle, NOON)

        for checkpoint in (middle, middle, oldest):
            stores.runs.forget(run.run_id, checkpoint.id)

        assert stores.runs.checkpoints(run.run_id) == (newest, oldest)
        assert stores.live.read_lease(run.run_id).save == 3

    def test_of_many_saves_from_one_version_exactly_one_wins(self, stores: Stores, rounds: int) -> None:
        run = created(stores)

        for _ in range(rounds):
            before = run
            outcomes = race([lambda r=r, b=before: _save_line(stores.runs, b, str(r)) for r in range(RACERS)])  # type: ignore[misc]
            assert of_kind(outcomes, LostRace) == RACERS - 1
            run = stores.runs.load(run.run_id)

        assert run.version == 1 + rounds
        assert len(stores.runs.timeline(run.run_id)) == rounds

    def test_claims_repeated_after_every_lost_race_add_up(self, stores: Stores, rounds: int) -> None:
        run = created(stores)
        each = 2 + rounds // 10

        outcomes = race([lambda: _claim(stores.runs, run.run_id, each)] * RACERS)

        assert outcomes == [None] * RACERS
        total = stores.runs.load(run.run_id)
        assert (total.launches, total.version) == (RACERS * each, 1 + RACERS * each)

    def test_of_many_creations_of_one_run_exactly_one_wins(self, stores: Stores, rounds: int) -> None:
        for _ in range(rounds):
            run_id = new_id()
            runs = [replace(new_run(run_id), failures=racer) for racer in range(RACERS)]

            outcomes = race([lambda run=run: persistent(lambda: stores.runs.create(run)) for run in runs])  # type: ignore[misc]

            assert outcomes.count(None) == 1
            assert stores.runs.load(run_id).failures == outcomes.index(None)


def _save_line(store: RunStore, before: Run, line: str) -> Run:
    return persistent(lambda: store.save(before, note(before, "won", line, NOON)))


def _claim(store: RunStore, run_id: str, times: int) -> None:
    won = 0
    while won < times:
        run = store.load(run_id)
        try:
            persistent(lambda run=run: store.save(run, replace(run, launches=run.launches + 1)))  # type: ignore[misc]
        except LostRace:
            continue
        won += 1


def with_commits(stores: Stores, saves: int) -> Run:
    """A new run whose first attempt, on machine `i-1`, committed so many checkpoints."""
    run = created(stores)
    stores.live.take_lease(run.run_id, 1, "i-1")
    for save in range(1, saves + 1):
        stores.live.commit(new_commit(run.run_id, 1, save), "i-1")
    return run
