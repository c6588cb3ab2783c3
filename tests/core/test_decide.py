"""What follows from a run, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.checkpoint import Checkpoint, Commit, Health, Verdict
from spotrelay.core.claim import claim
from spotrelay.core.decide import decide
from spotrelay.core.decisions import (
    Collect,
    Conclude,
    Decision,
    Fence,
    Observe,
    Recheck,
    Reserve,
    Resolve,
    Rest,
    Send,
    Terminate,
    Verify,
    Wait,
)
from spotrelay.core.errors import IllegalTransition
from spotrelay.core.facts import (
    CancelRequested,
    Collected,
    CollectionPostponed,
    LaunchAbandoned,
    LaunchAnswered,
    LaunchUnclear,
    Observed,
    TerminateAsked,
    VerificationPostponed,
)
from spotrelay.core.lease import Lease
from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState, InterruptionNotice, NoticeSource, RebalanceRecommendation, StateChange
from spotrelay.core.placement import FailureScope, Pool, Refusal
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.record import absorb, record
from spotrelay.core.retention import Upkeep
from spotrelay.core.run import FINAL, RUN_MOVES, AttemptState, Run, RunStatus, settle, with_attempt
from spotrelay.core.site import Site
from spotrelay.core.spec import Limits, NoCheckpoint, Spec, pools_of
from spotrelay.core.spending import spent

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SITE = Site(zones=(("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b")))
SPEC = Spec(("train",), ("g5.xlarge", "g6.xlarge"))
PRICED = replace(SITE, prices=dict.fromkeys(pools_of(SPEC, SITE.zones), 1.0))
POOL = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
MACHINE = "i-00000000000000001"


def submitted(spec: Spec = SPEC) -> Run:
    return Run("run-1", spec, NOON, lease=Lease("run-1"))


def reserved(run: Run, now: datetime = NOON, site: Site = SITE) -> Run:
    decision = decide(run, now, site)
    assert isinstance(decision, Reserve), decision
    return claim(run, decision, now, site, {"ClientToken": f"run-1.{decision.generation}.{decision.launch}"})


def launched(spec: Spec = SPEC, price: float | None = None) -> Run:
    run = reserved(submitted(spec), site=PRICED)
    send = decide(run, NOON, SITE)
    run = claim(run, send, NOON, SITE)
    return record(run, LaunchAnswered(run.launches, LaunchAnswer(MACHINE, POOL), price), NOON, SITE)


def training(spec: Spec = SPEC, price: float | None = None) -> Run:
    beat = Heartbeat("run-1", 1, 1, Phase.TRAINING, step=5, first_step=True)
    run = replace(launched(spec, price), lease=Lease("run-1", 1, MACHINE), heartbeats=(beat,))
    return absorb(run, NOON, SITE)


def noticed(run: Run, now: datetime = NOON) -> Run:
    notice = InterruptionNotice(MACHINE, "terminate", now + 2 * MINUTE, NoticeSource.EVENTBRIDGE)
    return record(run, notice, now, SITE)


def fenced(run: Run, floor: int = 2) -> Run:
    return replace(run, lease=Lease("run-1", 1, None, floor))


def gone(run: Run, now: datetime = NOON) -> Run:
    return fenced(record(run, StateChange(MACHINE, InstanceState.TERMINATED), now, SITE))


def committed(
    run: Run, save: int = 1, checked_at: datetime | None = None, ok: bool = True, health: Health = Health.HEALTHY
) -> Run:
    commit = Commit("run-1", 1, save, 5, "key", "v", "digest", 1, health)
    verdict = Verdict(1, save, ok, "", checked_at) if checked_at else None
    return replace(run, checkpoints=(Checkpoint(commit, verdict), *run.checkpoints))


def test_a_submitted_run_is_launched_in_the_preferred_type() -> None:
    decision = decide(submitted(), NOON, SITE)

    assert isinstance(decision, Reserve)
    assert (decision.generation, decision.launch) == (1, 1)
    assert {p.instance_type for p in decision.rung.pools} == {"g5.xlarge"}


def test_a_reserved_launch_is_sent_and_an_unclear_one_is_sent_again_unchanged() -> None:
    run = reserved(submitted())
    first = decide(run, NOON, SITE)
    assert isinstance(first, Send)
    run = record(claim(run, first, NOON, SITE), LaunchUnclear(1, "no reply"), NOON, SITE)

    assert isinstance(decide(run, NOON, SITE), Wait)
    later = NOON + MINUTE
    again = decide(run, later, SITE)

    assert isinstance(again, Send) and again.intent.request == first.intent.request


def test_a_refused_launch_keeps_its_generation_and_gets_a_new_number() -> None:
    run = reserved(submitted())
    refusals = tuple(Refusal(p, FailureScope.POOL, "InsufficientInstanceCapacity", "", NOON) for p in run.intent.pools)  # type: ignore[union-attr]
    run = record(run, LaunchAnswered(1, LaunchAnswer(None, None, refusals)), NOON, SITE)

    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Reserve)
    assert (decision.generation, decision.launch) == (1, 2)
    assert {p.instance_type for p in decision.rung.pools} == {"g6.xlarge"}


def test_when_every_pool_refused_the_run_waits_longer_each_time() -> None:
    waits = []
    run, now = submitted(), NOON
    for _ in range(3):
        while not isinstance(decision := decide(run, now, SITE), Wait):
            run = claim(run, decision, now, SITE, {})
            if run.intent is not None:
                refusals = tuple(Refusal(p, FailureScope.SERVER, "InternalError", "", now) for p in run.intent.pools)
                run = record(run, LaunchAnswered(run.launches, LaunchAnswer(None, None, refusals)), now, SITE)
        waits.append(decision.until - now)
        now = decision.until

    assert waits[0] < waits[1] < waits[2]


def test_a_configuration_error_ends_the_run_with_the_remedy() -> None:
    run = reserved(submitted())
    refusal = Refusal(POOL, FailureScope.CONFIGURATION, "InvalidParameterValue", "no such image", NOON)

    run = record(run, LaunchAnswered(1, LaunchAnswer(None, None, (refusal,))), NOON, SITE)
    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Conclude) and "no such image" in decision.why


@pytest.mark.parametrize("spec", [replace(SPEC, failover=False), replace(SPEC, limits=Limits(max_launches=1))])
def test_an_attempt_that_is_taken_back_may_finish_although_nothing_can_replace_it(spec: Spec) -> None:
    run = noticed(training(spec))

    early = decide(run, NOON + MINUTE, SITE)
    drained = absorb(replace(run, reports=(ExitReport("run-1", 1, EXIT_DRAINED, "program"),)), NOON + MINUTE, SITE)
    finished = absorb(replace(run, reports=(ExitReport("run-1", 1, EXIT_DONE, "program"),)), NOON + MINUTE, SITE)

    assert isinstance(early, Wait) and run.outcome is None
    assert isinstance(decide(drained, NOON + MINUTE, SITE), Conclude)
    assert finished.outcome is RunStatus.SUCCEEDED


def test_a_configuration_error_at_the_handover_leaves_the_old_attempt_its_time() -> None:
    run = reserved(noticed(training()))
    refusal = Refusal(POOL, FailureScope.CONFIGURATION, "UnauthorizedOperation", "not allowed", NOON)

    run = record(run, LaunchAnswered(2, LaunchAnswer(None, None, (refusal,))), NOON, SITE)

    assert isinstance(decide(run, NOON + MINUTE, SITE), Wait)
    assert isinstance(decide(run, NOON + 5 * MINUTE, SITE), (Terminate, Conclude))


def test_a_machine_whose_price_nobody_could_learn_is_not_free() -> None:
    run = training(replace(SPEC, limits=Limits(max_dollars=2.0)), price=None)
    run = with_attempt(run, replace(run.attempts[0], price=None))

    decision = decide(run, NOON + timedelta(hours=1), SITE)

    assert isinstance(decision, Conclude) and "max_dollars" in decision.why


def test_a_lease_taken_before_its_launch_is_written_down_is_seen_afterwards() -> None:
    run = reserved(submitted())
    early = absorb(replace(run, lease=Lease("run-1", 1, MACHINE)), NOON, SITE)

    given = record(early, LaunchAnswered(1, LaunchAnswer(MACHINE, POOL)), NOON, SITE)

    assert early.attempts[0].state is AttemptState.RESERVED
    assert absorb(given, NOON, SITE).status is RunStatus.RUNNING


@pytest.mark.parametrize("code", [75, 76])
def test_a_program_that_happens_to_exit_like_us_has_failed(code: int) -> None:
    run = absorb(replace(training(), reports=(ExitReport("run-1", 1, code, "program", "x"),)), NOON, SITE)

    assert run.attempts[0].crashed and run.failures == 1


def test_an_attempt_that_was_fenced_is_believed() -> None:
    run = replace(fenced(training()), reports=(ExitReport("run-1", 1, 76, "program"),))

    assert not absorb(run, NOON, SITE).attempts[0].crashed


def test_a_program_killed_while_its_machine_is_taken_counts_for_no_failure() -> None:
    run = noticed(training(replace(SPEC, limits=Limits(max_failures=1))))
    run = absorb(replace(run, reports=(ExitReport("run-1", 1, -9, "program"),)), NOON, SITE)

    assert run.failures == 0 and run.outcome is None


def test_a_launch_that_was_given_up_takes_its_generation_with_it() -> None:
    run = reserved(submitted())
    run = record(claim(run, decide(run, NOON, SITE), NOON, SITE), LaunchAbandoned(1), NOON, SITE)

    assert isinstance(decide(run, NOON, SITE), Fence)
    decision = decide(replace(run, lease=Lease("run-1", floor=2)), NOON, SITE)

    assert isinstance(decision, Reserve) and decision.generation == 2


def test_an_heir_that_never_had_the_lease_does_not_end_the_run_of_its_elder() -> None:
    run = noticed(training())
    run = reserved(run)
    run = record(run, LaunchAnswered(2, LaunchAnswer("i-00000000000000002", POOL)), NOON, SITE)
    run = absorb(replace(run, reports=(ExitReport("run-1", 2, EXIT_DONE, "program"),)), NOON, SITE)

    assert run.outcome is None


def test_an_outage_of_s3_is_told_once() -> None:
    run = training()
    for minute in range(5):
        run = record(run, VerificationPostponed("no answer"), NOON + minute * MINUTE, SITE)

    assert [entry.kind for entry in run.news].count("unverified") == 1


def test_an_unsent_launch_waits_a_little_while_launches_are_switched_off() -> None:
    decision = decide(reserved(submitted()), NOON, replace(SITE, launches_allowed=False))

    assert isinstance(decision, Wait) and decision.until <= NOON + SITE.timings.watch


def test_a_notice_launches_at_once_before_anything_is_verified() -> None:
    run = noticed(committed(training()))

    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Reserve) and decision.generation == 2
    assert POOL not in decision.rung.pools


def test_a_notice_told_twice_changes_nothing_the_second_time() -> None:
    once = noticed(training())

    assert noticed(once, NOON + MINUTE) == once


def test_a_notice_for_an_ended_attempt_or_another_machine_is_ignored() -> None:
    run = gone(training())
    other = InterruptionNotice("i-0000000000000000f", "terminate", NOON, NoticeSource.EVENTBRIDGE)

    assert noticed(run) == run
    assert record(run, other, NOON, SITE) == run


def test_a_rebalance_recommendation_is_noted_and_ends_nothing() -> None:
    run = record(training(), RebalanceRecommendation(MACHINE), NOON, SITE)

    assert run.status is RunStatus.RUNNING
    assert isinstance(decide(run, NOON, SITE), Wait)


def test_whoever_ended_is_fenced_before_the_next_launch() -> None:
    run = record(training(), StateChange(MACHINE, InstanceState.TERMINATED), NOON, SITE)

    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Fence) and decision.floor == 2


def test_after_a_loss_the_newest_checkpoint_is_compared_again_before_the_launch() -> None:
    run = committed(gone(training(), NOON + MINUTE), checked_at=NOON)

    decision = decide(run, NOON + MINUTE, SITE)

    assert isinstance(decision, Verify)


def test_a_bad_checkpoint_is_neither_verified_nor_resumed_from() -> None:
    run = committed(gone(training()), health=Health.BAD)

    assert isinstance(decide(run, NOON, SITE), Reserve)


@pytest.mark.parametrize(("choice", "kind"), [(NoCheckpoint.STOP, Conclude), (NoCheckpoint.RESTART, Reserve)])
def test_without_any_usable_checkpoint_the_spec_decides(choice: NoCheckpoint, kind: type[Decision]) -> None:
    run = committed(gone(training(replace(SPEC, on_no_checkpoint=choice))), checked_at=NOON, ok=False)

    assert isinstance(decide(run, NOON, SITE), kind)


def test_with_failover_off_a_loss_ends_the_run() -> None:
    decision = decide(gone(training(replace(SPEC, failover=False))), NOON, SITE)

    assert isinstance(decision, Conclude) and "failover is off" in decision.why


def test_no_launch_while_launches_are_switched_off() -> None:
    decision = decide(submitted(), NOON, replace(SITE, launches_allowed=False))

    assert isinstance(decision, Wait) and "switched off" in decision.why


@pytest.mark.parametrize(
    ("limits", "later", "said"),
    [
        (Limits(max_hours=1), timedelta(hours=1), "max_hours"),
        (Limits(max_dollars=2.0), timedelta(hours=2), "max_dollars"),
    ],
)
def test_time_and_money_end_a_run_that_trains(limits: Limits, later: timedelta, said: str) -> None:
    run = training(replace(SPEC, limits=limits), price=1.0)

    decision = decide(run, NOON + later, SITE)

    assert isinstance(decision, Conclude) and said in decision.why
    assert not isinstance(decide(run, NOON + later * 0.99, SITE), Conclude)


def test_a_waiting_run_is_due_by_the_moment_its_money_ends() -> None:
    run = training(replace(SPEC, limits=Limits(max_dollars=0.005)), price=1.0)

    decision = decide(run, NOON, SITE)

    assert isinstance(decision, Wait) and decision.until <= NOON + timedelta(hours=0.005)


def test_with_a_dollar_ceiling_only_pools_of_known_price_are_asked() -> None:
    run = submitted(replace(SPEC, limits=Limits(max_dollars=2.0)))
    known = Pool("eu-west-1", "eu-west-1b", "g5.xlarge")

    assert isinstance(decide(run, NOON, SITE), Wait)
    decision = decide(run, NOON, replace(SITE, prices={known: 0.5}))

    assert isinstance(decision, Reserve) and decision.rung.pools == (known,)


def test_an_on_demand_pool_is_affordable_at_the_price_that_the_spec_names() -> None:
    limits = Limits(max_dollars=2.0, on_demand_prices={"g5.xlarge": 1.2})
    run = reserved(submitted(replace(SPEC, on_demand=True, limits=limits)))
    assert run.intent is not None

    given = record(run, LaunchAnswered(1, LaunchAnswer(MACHINE, run.intent.pools[0])), NOON, SITE)

    assert {(p.instance_type, p.market) for p in run.intent.pools} == {("g5.xlarge", "on-demand")}
    assert given.attempts[0].price == 1.2


def test_money_counts_from_the_launch_until_ec2_says_that_the_machine_is_gone() -> None:
    run = training(price=3.0)
    after = record(run, StateChange(MACHINE, InstanceState.TERMINATED), NOON + timedelta(hours=1), SITE)

    assert spent(after, NOON + timedelta(hours=9)) == pytest.approx(3.0)


def test_a_program_that_failed_is_tried_again_and_then_no_more() -> None:
    run = training(replace(SPEC, limits=Limits(max_failures=1)))
    run = absorb(replace(run, reports=(ExitReport("run-1", 1, 1, "program", "ValueError: x"),)), NOON, SITE)

    assert run.outcome is RunStatus.FAILED and "ValueError: x" in run.outcome_why


def test_a_finished_program_ends_the_run_and_its_machine() -> None:
    run = absorb(replace(training(), reports=(ExitReport("run-1", 1, EXIT_DONE, "program"),)), NOON, SITE)
    assert run.status is RunStatus.STOPPING

    decision = decide(fenced(run), NOON, SITE)

    assert isinstance(decision, Terminate) and decision.instance_id == MACHINE


def test_a_drained_machine_is_left_to_ec2_until_its_time_is_over() -> None:
    run = noticed(training())
    run = absorb(replace(run, reports=(ExitReport("run-1", 1, EXIT_DRAINED, "program"),)), NOON, SITE)
    run = claim(reserved(run), Send(reserved(run).intent, ""), NOON, SITE)  # type: ignore[arg-type]
    run = record(run, LaunchAnswered(2, LaunchAnswer("i-00000000000000002", POOL)), NOON, SITE)

    early, late = decide(run, NOON + MINUTE, SITE), decide(run, NOON + 5 * MINUTE, SITE)

    assert not isinstance(early, Terminate)
    assert isinstance(late, Terminate) and late.instance_id == MACHINE


def test_a_machine_that_never_beats_is_ended_after_the_bound_for_booting() -> None:
    decision = decide(launched(), NOON + SITE.timings.boot, SITE)

    assert isinstance(decision, Terminate)


def test_a_machine_that_ends_by_itself_is_ended_by_us_only_when_it_does_not_go() -> None:
    run = fenced(record(training(), StateChange(MACHINE, InstanceState.SHUTTING_DOWN), NOON, SITE))

    early, late = decide(run, NOON, SITE), decide(run, NOON + 3 * MINUTE, SITE)

    assert isinstance(early, Reserve)
    assert isinstance(late, Terminate)


def test_silence_asks_ec2_before_it_ends_anything() -> None:
    run, now = training(), NOON
    while now < NOON + SITE.timings.silence:
        now += MINUTE
        run = absorb(run, now, SITE)

    decision = decide(run, now, SITE)
    answered = record(run, Observed(((MACHINE, InstanceState.RUNNING),)), now, SITE)

    assert isinstance(decision, Observe)
    assert isinstance(decide(answered, now, SITE), Wait)


def test_cancel_while_a_launch_is_open_finds_out_what_it_made() -> None:
    run = reserved(submitted())
    run = record(claim(run, decide(run, NOON, SITE), NOON, SITE), CancelRequested("enough"), NOON, SITE)
    run = fenced(run)

    decision = decide(run, NOON + MINUTE, SITE)

    assert isinstance(decision, Resolve)
    assert run.status is RunStatus.STOPPING


def test_a_machine_is_asked_to_end_once_and_then_watched() -> None:
    run = fenced(record(training(), CancelRequested("enough"), NOON, SITE))
    assert isinstance(decide(run, NOON, SITE), Terminate)

    run = record(run, TerminateAsked(MACHINE), NOON, SITE)

    assert isinstance(decide(run, NOON, SITE), Wait)
    assert isinstance(decide(run, NOON + MINUTE, SITE), Observe)


def test_a_final_run_rests_and_does_not_change_any_more() -> None:
    run = gone(record(training(), CancelRequested("enough"), NOON, SITE))
    assert run.status is RunStatus.CANCELLED

    tidied = record(run, Collected(Upkeep(since=NOON)), NOON, SITE)
    assert isinstance(decide(tidied, NOON, SITE), Rest)
    with pytest.raises(IllegalTransition):
        settle(run, replace(run, launches=9))


def test_a_final_run_is_due_until_its_bucket_is_tidy() -> None:
    run = gone(record(training(), CancelRequested("enough"), NOON, SITE))

    wait = decide(run, NOON, SITE)

    assert wait == Wait(NOON + SITE.timings.grace / 2, "the run cancelled; its bucket is still being tidied")
    assert isinstance(decide(run, wait.until, SITE), Collect)


def test_nothing_is_collected_of_a_run_that_never_had_the_lease() -> None:
    assert launched().upkeep.due_at is None


def test_collecting_comes_after_everything_that_somebody_waits_for() -> None:
    late = NOON + SITE.timings.grace

    assert isinstance(decide(noticed(training(), late), late, SITE), Reserve)
    assert isinstance(decide(training(), late, SITE), Collect)


def test_a_collection_without_an_answer_is_tried_again_a_little_later() -> None:
    late = NOON + SITE.timings.grace

    run = record(training(), CollectionPostponed("S3 does not answer"), late, SITE)

    assert run.upkeep.due_at == late + SITE.timings.backoff_most
    assert not isinstance(decide(run, late, SITE), Collect)


def test_once_a_checkpoint_is_condemned_the_others_are_compared_again_each_once() -> None:
    run = committed(committed(training(), 1, NOON), 2, NOON + MINUTE, ok=False)

    recheck = decide(run, NOON + MINUTE, SITE)

    assert isinstance(recheck, Recheck)
    assert [str(c.id) for c in recheck.checkpoints] == ["1.1"]
    again = Verdict(1, 1, True, checked_at=NOON + 2 * MINUTE)
    run = replace(run, checkpoints=tuple(replace(c, verdict=again) if c.verified else c for c in run.checkpoints))
    assert not isinstance(decide(run, NOON + 2 * MINUTE, SITE), Recheck)


def test_an_illegal_move_of_an_attempt_is_refused() -> None:
    run = training()
    back = replace(run, attempts=(replace(run.attempts[0], state=AttemptState.RESERVED),))

    with pytest.raises(IllegalTransition, match="from running to reserved"):
        settle(run, back)


def test_only_a_retry_leads_out_of_a_final_status_and_each_status_can_be_left_or_is_final() -> None:
    out = {move: cause for move, cause in RUN_MOVES.items() if move[0] in FINAL}
    assert set(out.values()) == {"a person retries it"}
    assert (RunStatus.SUCCEEDED, RunStatus.WAITING) not in out
    assert {move[0] for move in RUN_MOVES} | FINAL == set(RunStatus)
