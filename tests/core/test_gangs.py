"""An attempt of several machines: all or none of them, and what befalls one befalls all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from spotrelay.core.claim import claim
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Conclude, Observe, Reserve, Resolve, Send, Terminate, Wait
from spotrelay.core.errors import InvalidInput
from spotrelay.core.facts import LaunchAnswered, MachineFound, Observed, TerminateAsked
from spotrelay.core.lease import Lease
from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, EXIT_PARTED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState, InterruptionNotice, NoticeSource, StateChange
from spotrelay.core.placement import FailureScope
from spotrelay.core.ports import LaunchAnswer, Machine
from spotrelay.core.record import absorb, record
from spotrelay.core.row import decode_run, encode_run
from spotrelay.core.run import AttemptState, Run, RunStatus
from spotrelay.core.spec import Limits, Spec, parse_spec
from spotrelay.core.spending import spent
from tests.core.test_decide import MINUTE, NOON, POOL, SITE, reserved, submitted

FIRST, SECOND, THIRD = (f"i-{number:017x}" for number in (1, 2, 3))
GANG = Spec(("train",), ("g5.xlarge",), nodes=3, placement_group="close")
MOVING = replace(GANG, reunion_s=0.0)  # survivors are not kept: see `test_reunions.py`
STEP = timedelta(seconds=30)


def given(*machines: str, spec: Spec = GANG, price: float | None = None) -> Run:
    run = reserved(submitted(spec))
    run = claim(run, decide(run, NOON, SITE), NOON, SITE)
    return record(run, LaunchAnswered(1, LaunchAnswer(machines[0], POOL, (), machines[1:]), price), NOON, SITE)


def beat(node: int, counter: int = 1, phase: Phase = Phase.TRAINING) -> Heartbeat:
    return Heartbeat("run-1", 1, counter, phase, step=5, first_step=node == 0, node=node)


def training(**more: object) -> Run:
    run = given(FIRST, SECOND, THIRD, **more)  # type: ignore[arg-type]
    run = replace(run, lease=Lease("run-1", 1, FIRST), heartbeats=tuple(beat(node) for node in (2, 1, 0)))
    return absorb(run, NOON, SITE)


def notice(instance_id: str, minutes: float = 2) -> InterruptionNotice:
    return InterruptionNotice(instance_id, "terminate", NOON + minutes * MINUTE, NoticeSource.EVENTBRIDGE)


def reported(run: Run, node: int, code: int, at: timedelta = timedelta(0), stage: str = "program") -> Run:
    report = ExitReport("run-1", 1, code, stage, "the end", node=node)
    return absorb(replace(run, reports=(*run.reports, report)), NOON + at, SITE)


def fenced(run: Run) -> Run:
    return replace(run, lease=Lease("run-1", 1, None, 2))


# all or none


def test_one_request_asks_for_all_machines_and_their_place() -> None:
    decision = decide(submitted(GANG), NOON, SITE)

    assert isinstance(decision, Reserve)
    assert (decision.rung.nodes, decision.rung.placement_group) == (3, "close")
    intent = claim(submitted(GANG), decision, NOON, SITE).intent
    assert intent is not None and intent.nodes == 3


def test_the_machines_are_ranked_as_they_were_given_and_the_first_is_the_attempts() -> None:
    attempt = given(FIRST, SECOND, THIRD).current

    assert attempt is not None
    assert (attempt.state, attempt.instance_id) == (AttemptState.BOOTING, FIRST)
    assert attempt.instance_ids == (FIRST, SECOND, THIRD)


def test_of_an_incomplete_gang_every_machine_is_ended_and_its_pool_counts_as_refusing() -> None:
    run = given(FIRST, SECOND)

    assert run.current is not None and run.current.over
    assert run.current.ended_why == "EC2 gave 2 of 3 machines"
    assert [(r.pool, r.scope) for r in run.refusals] == [(POOL, FailureScope.POOL)]
    decision = decide(fenced(run), NOON, SITE)
    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, SECOND)
    for machine in decision.instance_ids:
        run = record(run, TerminateAsked(machine), NOON, SITE)
    following = decide(fenced(run), NOON, SITE)
    assert isinstance(following, Reserve)
    assert (following.generation, following.launch) == (2, 2)
    assert POOL not in following.rung.pools


def test_a_launch_that_nobody_wants_any_more_is_recorded_with_everything_it_made() -> None:
    run = reserved(submitted(GANG))
    run = claim(run, decide(run, NOON, SITE), NOON, SITE)
    off = replace(SITE, launches_allowed=False)
    later = NOON + MINUTE
    decision = decide(run, later, off)
    assert isinstance(decision, Resolve)
    made = tuple(Machine(each, InstanceState.RUNNING, "run-1", 1, 1, POOL) for each in (FIRST, SECOND, THIRD))

    run = record(run, MachineFound(made[0], made[1:]), later, SITE)

    assert run.current is not None and run.current.instance_ids == (FIRST, SECOND, THIRD)
    assert run.current.state is AttemptState.BOOTING


def test_the_launch_limit_counts_machines() -> None:
    run = submitted(replace(GANG, limits=Limits(max_launches=5)))
    run = replace(run, attempts=given(FIRST, SECOND, THIRD).attempts)
    run = record(run, StateChange(SECOND, InstanceState.TERMINATED), NOON, SITE)
    for machine in (FIRST, THIRD):
        run = record(run, StateChange(machine, InstanceState.TERMINATED), NOON, SITE)

    decision = decide(fenced(run), NOON + MINUTE, SITE)

    assert isinstance(decision, Conclude)
    assert decision.why == "limits.max_launches reached: 3 machines"


def test_every_machine_costs_its_own_time() -> None:
    run = training(price=2.0)
    run = record(run, StateChange(THIRD, InstanceState.TERMINATED), NOON + 30 * MINUTE, SITE)

    assert spent(run, NOON + 60 * MINUTE) == pytest.approx(2.0 + 2.0 + 1.0)


# what befalls one befalls all


def test_a_notice_for_one_machine_drains_the_attempt_and_its_successor_is_launched_whole() -> None:
    run = record(training(spec=MOVING), notice(SECOND), NOON, SITE)

    assert run.current is not None and run.current.state is AttemptState.DRAINING
    assert run.status is RunStatus.HANDOVER
    decision = decide(run, NOON, SITE)
    assert isinstance(decision, Reserve)
    assert (decision.generation, decision.rung.nodes) == (2, 3)


def draining(run: Run) -> Run:
    """Its successor's launch is open, and waits for its answer."""
    run = reserved(run)
    return claim(run, decide(run, NOON, SITE), NOON + 10 * MINUTE, SITE)


def test_while_a_gang_drains_none_of_its_machines_is_ended() -> None:
    run = draining(record(training(spec=MOVING), notice(SECOND), NOON, SITE))

    assert isinstance(decide(run, NOON + STEP, SITE), Wait)


def test_once_it_drained_the_machines_that_ec2_did_not_ask_for_are_ended_and_the_other_is_left_to_ec2() -> None:
    run = reported(draining(record(training(spec=MOVING), notice(SECOND), NOON, SITE)), 0, EXIT_DRAINED)

    decision = decide(run, NOON + STEP, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, THIRD)
    for machine in decision.instance_ids:
        run = record(run, TerminateAsked(machine), NOON + STEP, SITE)
    late = decide(run, NOON + 5 * MINUTE, SITE)
    assert isinstance(late, Terminate)
    assert late.instance_ids[0] == FIRST  # asked for again; and EC2 has not kept its word
    assert SECOND in late.instance_ids


def test_a_second_notice_leaves_that_machine_to_ec2_too() -> None:
    run = record(training(spec=MOVING), notice(SECOND), NOON, SITE)
    run = record(run, notice(FIRST, 1), NOON, SITE)
    again = record(run, notice(FIRST, 5), NOON, SITE)

    assert again == run
    assert run.current is not None and run.current.deadline == NOON + MINUTE
    run = reported(draining(run), 0, EXIT_DRAINED)
    decision = decide(run, NOON + STEP, SITE)
    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (THIRD,)


def test_a_machine_that_is_gone_ends_the_attempt_and_the_survivors_are_ended() -> None:
    run = record(training(spec=MOVING), StateChange(THIRD, InstanceState.TERMINATED), NOON, SITE)

    assert run.current is not None and run.current.over
    decision = decide(fenced(run), NOON, SITE)
    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (FIRST, SECOND)
    assert run.live == run.attempts


def test_an_attempt_lives_until_the_last_of_its_machines_is_gone() -> None:
    run = training()
    for number, machine in enumerate((THIRD, FIRST, SECOND)):
        assert run.live
        run = record(run, StateChange(machine, InstanceState.TERMINATED), NOON + number * MINUTE, SITE)

    assert not run.live
    assert run.current is not None and run.current.machine_gone_at == NOON + 2 * MINUTE


def silent(run: Run, minutes: int) -> Run:
    """The first two beat on, the third does not."""
    for minute in range(1, minutes + 1):
        run = replace(run, heartbeats=(beat(2), beat(1, 1 + minute), beat(0, 1 + minute)))
        run = absorb(run, NOON + minute * MINUTE, SITE)
    return run


def test_the_silence_of_one_machine_is_looked_into() -> None:
    run = silent(training(), 6)

    decision = decide(run, NOON + 6 * MINUTE, SITE)

    assert isinstance(decision, Observe)
    assert decision.instance_ids == (THIRD,)


def test_a_machine_that_stays_silent_and_runs_is_ended_alone_and_then_the_gang_is_over() -> None:
    run = record(silent(training(), 6), Observed(((THIRD, InstanceState.RUNNING),)), NOON + 6 * MINUTE, SITE)
    for minute in range(7, 17):
        run = replace(run, heartbeats=(beat(2), beat(1, minute), beat(0, minute)))
        run = absorb(run, NOON + minute * MINUTE, SITE)
    late = NOON + 16 * MINUTE

    decision = decide(run, late, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (THIRD,)
    run = record(run, Observed(((THIRD, InstanceState.SHUTTING_DOWN),)), late, SITE)
    assert run.current is not None and run.current.over


def test_a_machine_that_never_beats_is_ended_though_the_others_do() -> None:
    run = given(FIRST, SECOND, THIRD)
    run = absorb(replace(run, heartbeats=(beat(1), beat(0))), NOON, SITE)

    decision = decide(run, NOON + SITE.timings.boot, SITE)

    assert isinstance(decision, Terminate)
    assert decision.instance_ids == (THIRD,)


# how programs end


def test_the_first_machine_speaks_of_the_end_of_all() -> None:
    run = reported(training(), 2, EXIT_DONE)
    assert run.outcome is None

    run = reported(run, 0, EXIT_DONE)

    assert run.outcome is RunStatus.SUCCEEDED


def test_after_success_a_machine_that_has_not_reported_may_ship_its_log_for_a_moment() -> None:
    run = reported(reported(training(), 1, EXIT_DONE), 0, EXIT_DONE)
    run = fenced(run)

    at_once = decide(run, NOON, SITE)
    later = decide(run, NOON + SITE.timings.settle, SITE)

    assert isinstance(at_once, Terminate) and at_once.instance_ids == (FIRST, SECOND)
    assert isinstance(later, Terminate) and later.instance_ids == (FIRST, SECOND, THIRD)


ALIVE = Observed(tuple((each, InstanceState.RUNNING) for each in (FIRST, SECOND, THIRD)))


def asked_about(run: Run, *seconds: int) -> Run:
    """EC2 says each time that all machines run."""
    for second in seconds:
        moment = NOON + timedelta(seconds=second)
        assert isinstance(decide(run, moment, SITE), Observe)
        run = absorb(record(run, ALIVE, moment, SITE), moment, SITE)
    return run


def test_a_failed_program_is_no_failure_while_it_is_not_known_whether_a_machine_is_gone() -> None:
    run = reported(training(), 0, 1)

    assert run.current is not None and not run.current.over
    decision = decide(run, NOON + timedelta(seconds=1), SITE)
    assert isinstance(decision, Observe)
    assert decision.instance_ids == (FIRST, SECOND, THIRD)
    run = record(run, Observed(((THIRD, InstanceState.TERMINATED),)), NOON + timedelta(seconds=1), SITE)
    assert run.current is not None and run.current.over
    assert (run.current.crashed, run.failures) == (False, 0)


def test_a_program_that_fails_on_any_machine_while_all_are_there_fails_the_attempt() -> None:
    run = asked_about(reported(training(), 2, 1), 1, 31, 61)

    assert run.failures == 1
    assert run.current is not None and run.current.crashed
    assert run.current.ended_why == "its program on machine 2 exited with status 1"


def test_the_failure_on_another_machine_counts_before_that_of_ranks_that_lost_it() -> None:
    run = asked_about(reported(reported(training(), 0, EXIT_PARTED), 1, 3), 1, 31, 61)

    assert run.current is not None
    assert run.current.ended_why == "its program on machine 1 exited with status 3"


def test_a_machine_that_ends_itself_after_its_report_is_not_what_broke_the_gang() -> None:
    run = reported(training(), 0, 1)
    run = record(run, StateChange(FIRST, InstanceState.SHUTTING_DOWN), NOON, SITE)
    assert run.current is not None and not run.current.over

    run = asked_about(run, 1, 31, 61)

    assert run.current is not None and run.current.crashed


def test_a_bootstrap_that_fails_on_any_machine_fails_the_attempt_at_once() -> None:
    run = reported(given(FIRST, SECOND, THIRD), 1, 5, stage="boot")

    assert run.failures == 1
    assert run.current is not None
    assert run.current.ended_why == "its boot on machine 1 exited with status 5"


def test_with_one_machine_that_status_is_like_any_other() -> None:
    run = given(FIRST, spec=replace(GANG, nodes=1, placement_group=""))
    run = absorb(replace(run, lease=Lease("run-1", 1, FIRST), heartbeats=(beat(0),)), NOON, SITE)

    assert reported(run, 0, EXIT_PARTED).failures == 1


# rows and specs


def test_a_gangs_row_is_read_as_it_was_written() -> None:
    run = record(training(), notice(SECOND), NOON, SITE)
    run = replace(run, news=(), lease=None, heartbeats=())

    assert decode_run(encode_run(run), "run-1") == run


def test_a_row_from_before_there_were_gangs_is_read() -> None:
    run = replace(given(FIRST, spec=replace(GANG, nodes=1, placement_group="")), news=(), lease=None)
    row = json.loads(encode_run(run))
    for name in ("nodes", "placement_group"):
        del row["spec"][name]
    del row["silences"]
    for name in ("members", "parted_at"):
        del row["attempts"][0][name]

    read = decode_run(json.dumps(row), "run-1")

    assert read == run
    assert read.current is not None and read.current.instance_ids == (FIRST,)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"nodes": 0}, "nodes must be above zero"),
        ({"nodes": 33}, "nodes must not be above 32"),
        ({"nodes": 4, "limits": {"max_launches": 3}}, "nodes is above limits.max_launches"),
        ({"placement_group": "close"}, "placement_group is for nodes that train together"),
        ({"nodes": 2, "placement_group": " "}, "is no name of one"),
    ],
)
def test_a_gang_that_cannot_be_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_spec({"command": ["train"], "instance_types": ["g5.xlarge"], **more})


def test_sending_is_as_for_one_machine() -> None:
    run = reserved(submitted(GANG))

    assert isinstance(decide(run, NOON, SITE), Send)


def test_the_example_of_a_gang_is_a_spec_that_works() -> None:
    example = Path(__file__).parents[2] / "examples" / "gang.yaml"

    spec = parse_spec(yaml.safe_load(example.read_text()))

    assert (spec.nodes, spec.command[0]) == (2, "torchrun")
    assert (example.parent / spec.command[2]).is_file()
