"""When a checkpoint is looked for in a replica of the bucket, and what follows from what was found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.claim import claim
from spotrelay.core.comparing import NO_ANSWER, next_looks, regions_with, replica_of
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Compare, Wait
from spotrelay.core.facts import Compared
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.placement import Pool, Rung
from spotrelay.core.record import absorb, record
from spotrelay.core.replica import Replica
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.scored import scored
from spotrelay.core.site import Site
from spotrelay.core.spec import Spec
from spotrelay.core.spending import transfer_of

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOME, AWAY = "us-east-1", "us-west-2"
ZONES = ((HOME, "us-east-1a"), (AWAY, "us-west-2a"))
COPY = (AWAY, "the-copy")
SITE = Site(ZONES, home=HOME, replicas=(COPY,))
TIMINGS = SITE.timings
THERE, HERE = Pool(AWAY, "us-west-2a", "g5.xlarge"), Pool(HOME, "us-east-1a", "g5.xlarge")
FULL = Compared(AWAY, "1.1", True)
LACKS = Compared(AWAY, "1.1", False, "runs/run-1/shards/0 is not in the bucket")


def a_checkpoint(save: int = 1, at: datetime = NOON) -> Checkpoint:
    commit = Commit("run-1", 1, save, 10 * save, f"manifest-{save}", "v1", "digest", 8 * 2**30)
    return Checkpoint(commit, Verdict(1, save, True, checked_at=at))


def a_run(pool: Pool = HERE, state: AttemptState = AttemptState.RUNNING, **more: object) -> Run:
    """A run with one machine and one checkpoint that is whole at home."""
    status = RunStatus.RUNNING if state is AttemptState.RUNNING else RunStatus.STARTING
    attempt = Attempt(
        2, state, "i-0123456789abcdef0", pool, launched_at=NOON, beating_at=NOON, observed_at=NOON, price=1.0
    )
    spec = Spec(("train",), ("g5.xlarge",))
    row = Run("run-1", spec, NOON, status=status, attempts=(attempt,), checkpoints=(a_checkpoint(),))
    return replace(row, noted_commit="1.1", **more)  # type: ignore[arg-type]  # each field by its own name


def waiting_there() -> Run:
    return a_run(THERE, AttemptState.BOOTING)


def looked(run: Run, fact: Compared, now: datetime = NOON) -> Run:
    """The run after the look that it is due for, claimed and recorded."""
    decision = decide(run, now, SITE)
    assert isinstance(decision, Compare)
    return record(claim(run, decision, now, SITE), fact, now, SITE)


def test_a_checkpoint_is_looked_for_where_the_next_attempt_may_be() -> None:
    decision = decide(a_run(), NOON, SITE)

    assert isinstance(decision, Compare)
    assert (str(decision.checkpoint.id), decision.replicas) == ("1.1", (COPY,))


def test_without_a_replica_nothing_is_looked_for() -> None:
    assert isinstance(decide(a_run(), NOON, replace(SITE, replicas=())), Wait)


def test_a_region_in_which_the_run_may_not_be_is_not_looked_at() -> None:
    run = a_run()
    at_home = replace(run, spec=replace(run.spec, zones=("us-east-1a",)))

    assert isinstance(decide(at_home, NOON, SITE), Wait)


def test_what_is_not_certain_at_home_is_looked_for_nowhere_else() -> None:
    lost = a_run(THERE, AttemptState.BOOTING, recheck_after=NOON, verify_at=NOON + SECOND)

    assert not isinstance(decide(lost, NOON, SITE), Compare)


def test_a_complete_replica_is_not_looked_at_again_until_a_machine_is_lost() -> None:
    run = looked(waiting_there(), FULL)
    lost = replace(run, recheck_after=NOON + SECOND, checkpoints=(a_checkpoint(at=NOON + 2 * SECOND),))

    assert not isinstance(decide(run, NOON + SECOND, SITE), Compare)
    assert isinstance(decide(lost, NOON + 3 * SECOND, SITE), Compare)


def test_whoever_starts_there_has_it_looked_at_at_once() -> None:
    training = looked(a_run(), LACKS)
    moved = waiting_there().attempts[0]
    moved = replace(moved, generation=3, instance_id="i-1", launched_at=NOON + SECOND, beating_at=None)
    there = replace(training, attempts=(moved,), status=RunStatus.STARTING)

    assert isinstance(decide(there, NOON + SECOND, SITE), Compare)
    again = looked(there, LACKS, NOON + SECOND)
    assert not isinstance(decide(again, NOON + 2 * SECOND, SITE), Compare)


def test_a_newer_checkpoint_is_looked_for_anew() -> None:
    run = looked(a_run(), FULL)

    newer = replace(run, checkpoints=(a_checkpoint(2), a_checkpoint()), noted_commit="1.2")

    assert isinstance(decide(newer, NOON, SITE), Compare)
    assert regions_with(newer, SITE) == frozenset()


def test_an_incomplete_replica_is_looked_at_soon_while_somebody_boots_beside_it_and_seldom_otherwise() -> None:
    waiting, training = looked(waiting_there(), LACKS), looked(a_run(), LACKS)
    soon, later = NOON + TIMINGS.settle, NOON + TIMINGS.watch

    assert not isinstance(decide(waiting, soon - SECOND, SITE), Compare)
    assert isinstance(decide(waiting, soon, SITE), Compare)
    assert list(next_looks(waiting, SITE)) == [soon]
    assert not isinstance(decide(training, later - SECOND, SITE), Compare)
    again = looked(training, LACKS, later)
    assert not isinstance(decide(again, later + 2 * TIMINGS.watch - SECOND, SITE), Compare)
    assert isinstance(decide(again, later + 2 * TIMINGS.watch, SITE), Compare)


def test_who_has_restored_is_not_served_any_more() -> None:
    run = waiting_there()
    beat = Heartbeat("run-1", 2, 1, Phase.RESTORING, resumed_from=10, resumed_checkpoint="1.1")
    restored = absorb(replace(looked(run, LACKS), heartbeats=(beat,)), NOON, SITE)

    assert list(next_looks(restored, SITE)) == []


def test_a_look_that_never_ends_keeps_nobody_from_going_on() -> None:
    run = waiting_there()
    decision = decide(run, NOON, SITE)
    assert isinstance(decision, Compare)

    died = claim(run, decision, NOON, SITE)

    assert not isinstance(decide(died, NOON + SECOND, SITE), Compare)
    told = replica_of(died, a_checkpoint(), AWAY)
    assert told == Replica(AWAY, "the-copy", "1.1", False, NO_ANSWER, NOON, 1)


def test_the_timeline_says_where_a_checkpoint_is_read_and_why() -> None:
    complete, lacking = looked(waiting_there(), FULL), looked(waiting_there(), LACKS)

    assert [entry.text for entry in complete.news] == [
        "checkpoint 1.1 is complete in the replica in us-west-2: attempt 2 may read it there"
    ]
    assert [entry.text for entry in lacking.news] == [
        "checkpoint 1.1 is read at home: the replica in us-west-2 does not have it whole: "
        "runs/run-1/shards/0 is not in the bucket"
    ]
    assert looked(a_run(), FULL).news == (), "nobody is about to read anything"


def test_the_same_problem_is_told_once_and_its_end_is_told() -> None:
    once = looked(waiting_there(), LACKS)
    twice = looked(replace(once, news=()), LACKS, NOON + TIMINGS.settle)
    in_the_end = looked(twice, FULL, NOON + 2 * TIMINGS.settle)

    assert twice.news == ()
    assert [entry.data["complete"] for entry in in_the_end.news] == [True]


def test_a_late_answer_about_an_older_checkpoint_changes_nothing() -> None:
    run = looked(waiting_there(), LACKS)

    assert record(run, Compared(AWAY, "1.0", True), NOON, SITE) is run


def test_the_heartbeat_says_where_it_was_read() -> None:
    via = "the replica in us-west-2"
    beat = Heartbeat("run-1", 2, 1, Phase.RESTORING, resumed_from=10, resumed_checkpoint="1.1", resumed_via=via)

    run = absorb(replace(waiting_there(), heartbeats=(beat,)), NOON, SITE)

    assert run.news[-1].text == f"attempt 2 resumed from checkpoint 1.1 at step 10, read from {via}"


@pytest.mark.parametrize(("fact", "dollars"), [(FULL, 0.0), (LACKS, 0.16)])
def test_only_a_complete_replica_spares_the_transfer(fact: Compared, dollars: float) -> None:
    run = looked(a_run(), fact)
    scores = scored(run, (HERE, THERE), {HERE: 5.0, THERE: 5.0}, replace(SITE, prices={HERE: 1.0, THERE: 0.9}))
    assert transfer_of(run, Rung((THERE,), "for a test"), SITE) == pytest.approx(dollars)
    assert ("GiB from elsewhere" in scores[THERE].why) is bool(dollars)


def test_a_replica_that_the_stack_no_longer_has_spares_nothing() -> None:
    run = looked(a_run(), FULL)

    assert regions_with(run, SITE) == {AWAY}
    assert regions_with(run, replace(SITE, replicas=())) == frozenset()
