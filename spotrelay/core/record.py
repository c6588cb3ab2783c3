"""How a fact changes a run. Every function here is pure and idempotent: a fact told twice changes nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import singledispatch

from spotrelay.core.breaker import died_young, last_line, protected
from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.clockwork import spread
from spotrelay.core.comparing import compared
from spotrelay.core.facts import (
    CancelRequested,
    Collected,
    CollectionPostponed,
    Compared,
    DrainAsked,
    Fact,
    LaunchAbandoned,
    LaunchAnswered,
    LaunchPostponed,
    LaunchUnclear,
    MachineFound,
    MoneyBack,
    MoneyRefused,
    Observed,
    Paid,
    PauseRequested,
    Priced,
    ResumeRequested,
    RetryRequested,
    StacksAsked,
    TerminateAsked,
    VerificationPostponed,
    Verified,
)
from spotrelay.core.gang import absorb_beats, has_spoken, is_moot, noticed_too, own_failure, parted, parts
from spotrelay.core.hang import looked, suspected
from spotrelay.core.lifecycle import awake, drain_asked, pause, resume, retry
from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, EXIT_FENCED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState, InterruptionNotice, NoticeSource, RebalanceRecommendation, StateChange
from spotrelay.core.placement import FailureScope, Refusal
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.reunion import taken_over
from spotrelay.core.run import (
    PAUSE,
    Attempt,
    AttemptState,
    Intent,
    Member,
    Run,
    RunStatus,
    Silence,
    machine_on,
    note,
    settle,
    silence_of,
    with_attempt,
    with_machine,
)
from spotrelay.core.silence import is_silent, looked_again
from spotrelay.core.site import Site
from spotrelay.core.spending import asked_again_at, is_broke, spent

REFUSALS_KEPT = 40
_VANISHED = (InstanceState.TERMINATED, InstanceState.GONE, InstanceState.STOPPED)


def record(run: Run, fact: Fact, now: datetime, site: Site) -> Run:
    """The run with this fact in it, or the very same run when the fact says nothing new.

    Raises:
        IllegalTransition: a defect of ours; nothing may be written.
    """
    if run.status.final and not isinstance(fact, (Collected, CollectionPostponed, RetryRequested)):
        return run
    return settle(run, _apply(fact, run, now, site))


def absorb(run: Run, now: datetime, site: Site) -> Run:
    """The run with everything in it that its lease, heartbeats, reports and commits say by now."""
    if run.status.final:
        return run
    after = run
    for attempt in run.attempts:
        after = settle(after, _absorb_lease(after, attempt.generation, now))
        beat = run.heartbeat(attempt.generation)
        if beat is not None:
            after = _absorb_heartbeat(after, beat, now)
        if attempt.members:
            after = absorb_beats(after, attempt.generation, now)
    after = _absorb_commits(after, now)
    after = _absorb_writer(after, now, site)
    for report in sorted(run.reports, key=lambda r: (r.generation, r.node)):
        after = settle(after, _absorb_report(after, report, now, site))
    after = settle(after, _absorb_parting(after, now, site))
    return settle(after, looked(_absorb_silence(after, now, site), now, site))


# What attempts say about themselves


def _absorb_lease(run: Run, generation: int, now: datetime) -> Run:
    attempt = run.attempt(generation)
    if attempt is None or run.lease is None or run.lease.generation != generation or attempt.running_at is not None:
        return run
    if attempt.state is AttemptState.RESERVED:
        return run  # its machine was faster than the record of its launch: seen again once that is written
    if attempt.state is AttemptState.BOOTING:
        attempt = replace(attempt, state=AttemptState.RUNNING)
    run = with_attempt(run, replace(attempt, running_at=now))
    return note(run, "lease", f"attempt {generation} took the lease", now, generation)


def _absorb_heartbeat(run: Run, beat: Heartbeat, now: datetime) -> Run:
    old = run.attempt(beat.generation)
    if old is None:
        return run
    best = max((a.last_step for a in run.attempts), default=0)
    new = replace(
        old,
        beating_at=old.beating_at or now,
        last_step=old.last_step if old.over else max(old.last_step, beat.step),  # a zombie's steps are nobody's
        resumed_from=beat.resumed_from if beat.resumed_from is not None else old.resumed_from,
        resumed_checkpoint=beat.resumed_checkpoint or old.resumed_checkpoint,
        first_step_at=old.first_step_at or (now if beat.first_step else None),
        drained_at=old.drained_at or (now if beat.phase is Phase.DRAINED else None),
    )
    if new == old:
        return run
    run = with_attempt(run, new)
    if old.beating_at is None:
        run = note(run, "alive", f"attempt {new.generation} sent its first heartbeat", now, new.generation)
    if old.resumed_checkpoint != new.resumed_checkpoint:
        text = f"attempt {new.generation} resumed from checkpoint {new.resumed_checkpoint} at step {new.resumed_from}"
        text += f", read from {beat.resumed_via}" if beat.resumed_via else ""
        run = note(run, "resumed", text, now, new.generation, step=new.resumed_from, checkpoint=new.resumed_checkpoint)
    if old.first_step_at is None and new.first_step_at is not None:
        run = note(run, "first-step", f"attempt {new.generation} finished its first new step", now, new.generation)
    if old.drained_at is None and new.drained_at is not None:
        run = note(run, "drained", f"attempt {new.generation} drained at step {new.last_step}", now, new.generation)
    return replace(run, failures=0) if new.last_step > best else run


def _absorb_writer(run: Run, now: datetime, site: Site) -> Run:
    """From the first lease on there may be something in the bucket that nobody will ever name."""
    written = run.lease is not None and run.lease.generation > 0
    if not written or run.upkeep.begun:
        return run
    return replace(run, upkeep=replace(run.upkeep, due_at=now + site.timings.grace / 2))


def _absorb_commits(run: Run, now: datetime) -> Run:
    noted = CheckpointId.of(run.noted_commit)
    fresh = sorted((c for c in run.checkpoints if c.id > noted), key=lambda c: c.id)
    for checkpoint in fresh:
        commit = checkpoint.commit
        text = f"checkpoint {commit.id} committed at step {commit.step} ({commit.reason.value}, {commit.health.value})"
        if commit.back_to:
            back = f"attempt {commit.generation} went back to checkpoint {commit.back_to}: {commit.why}"
            run = note(run, "rolled-back", back, now, commit.generation, step=commit.step, checkpoint=commit.back_to)
        run = note(run, "committed", text, now, commit.generation, step=commit.step, checkpoint=str(commit.id))
    return replace(run, noted_commit=str(fresh[-1].id)) if fresh else run


def _absorb_report(run: Run, report: ExitReport, now: datetime, site: Site) -> Run:
    attempt = run.attempt(report.generation)
    if attempt is None or attempt.over or attempt.state is AttemptState.RESERVED or run.outcome is not None:
        return run
    if is_moot(report, attempt):
        return run
    generation = attempt.generation
    taken_back = attempt.state is AttemptState.DRAINING
    if report.code == EXIT_DRAINED and (taken_back or attempt.drained_at is not None):
        return _drained(run, attempt, now)
    if report.code == EXIT_FENCED and _replaced(run, generation):
        return _ended(run, attempt, "it found that it had been replaced", now)
    if report.code == EXIT_DONE and report.stage == "program" and _may_finish(run, attempt):
        run = _ended(run, attempt, "its program finished", now)
        return _concluded(run, RunStatus.SUCCEEDED, f"attempt {generation} finished", now)
    if taken_back:
        return _ended(run, attempt, f"its program ended with status {report.code} while EC2 took the machine", now)
    if report.stage == "host":
        return _bad_host(run, attempt, report, now, site)
    if parts(report, attempt):
        return parted(run, attempt, now)
    return _crashed(run, attempt, report, now, site)


def _absorb_parting(run: Run, now: datetime, site: Site) -> Run:
    """A gang whose programs failed, while EC2 says that no machine was lost."""
    attempt = run.current
    if attempt is None or attempt.over or run.outcome is not None:
        return run
    report = own_failure(run, attempt, now, site)
    return run if report is None else _crashed(run, attempt, report, now, site)


def _replaced(run: Run, generation: int) -> bool:
    """Whether the lease bears out an attempt that says it has been fenced: a program may exit with any status."""
    return run.lease is not None and (run.lease.floor > generation or run.lease.generation > generation)


def _may_finish(run: Run, attempt: Attempt) -> bool:
    """Whether this attempt's end is the run's: not fenced, and nobody before it is still at work."""
    elder = any(a.live and not a.over for a in run.attempts if a.generation < attempt.generation)
    fenced = run.lease is not None and run.lease.floor > attempt.generation
    return not fenced and (attempt.running_at is not None or not elder)


def _from_now_on(run: Run, now: datetime) -> datetime:
    """Now; not before any verdict there is, which another function's clock may have dated ahead of ours."""
    verdicts = (c.verdict for c in run.checkpoints if c.verdict is not None)
    return max([now, *(v.checked_at for v in verdicts if v.checked_at is not None)])


def _drained(run: Run, attempt: Attempt, now: datetime) -> Run:
    if attempt.state is not AttemptState.DRAINING:
        by = PAUSE if run.paused else "program"
        run = note(run, "notice", f"attempt {attempt.generation} drained of its own accord", now, attempt.generation)
        attempt = replace(attempt, state=AttemptState.DRAINING, noticed_at=now, noticed_by=by, deadline=now)
        run = replace(run, recheck_after=_from_now_on(run, now))
    return with_attempt(run, replace(attempt, drained_at=attempt.drained_at or now))


def _bad_host(run: Run, attempt: Attempt, report: ExitReport, now: datetime, site: Site) -> Run:
    """As a loss of the machine: its pool is avoided for a while. It counts, or a bad image would go on for ever."""
    run = _ended(run, attempt, f"its host is bad: {last_line(report.tail)}", now)
    return replace(run, failures=run.failures + 1, recheck_after=_from_now_on(run, now))


def _crashed(run: Run, attempt: Attempt, report: ExitReport, now: datetime, site: Site) -> Run:
    part = "its program" if report.stage == "program" else "its boot"
    part += f" on machine {report.node}" if attempt.members else ""
    how = f"was killed by signal {-report.code}" if report.code < 0 else f"exited with status {report.code}"
    run = _ended(run, replace(attempt, crashed=True), f"{part} {how}", now)
    failures = run.failures + 1
    run = replace(run, failures=failures, retry_at=now + site.timings.crash)
    if failures >= run.spec.limits.max_failures:
        return _concluded(run, RunStatus.FAILED, protected(run, f"{part} {how}", report.tail), now)
    return run


def _absorb_silence(run: Run, now: datetime, site: Site) -> Run:
    watched = next((a for a in reversed(run.attempts) if not a.over and a.live and a.beating_at is not None), None)
    if watched is None:
        return replace(run, silence=None, silences=())
    heard = [_listened(run, watched.generation, node, now, site) for node in range(len(watched.machines))]
    return replace(run, silence=heard[0], silences=tuple(each for each in heard[1:] if each is not None))


def _listened(run: Run, generation: int, node: int, now: datetime, site: Site) -> Silence | None:
    beat, old = run.heartbeat(generation, node), silence_of(run, generation, node)
    if beat is None:
        return None
    fresh = Silence(generation, beat.counter, since=now, last_look=now, node=node)
    return fresh if old is None or old.counter != beat.counter else looked_again(old, fresh, site)


# What the world says


@singledispatch
def _apply(fact: object, run: Run, now: datetime, site: Site) -> Run:
    raise TypeError(f"no such fact: {fact!r}")


@_apply.register
def _(fact: InterruptionNotice, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt_on(fact.instance_id)
    if attempt is None or (attempt.over and not attempt.members):
        return run
    deadline = now if fact.action == "hibernate" else fact.deadline
    if fact.source is NoticeSource.DRAIN:
        deadline = now + site.timings.drain  # nobody takes the machine: it has the time that it needs
    if attempt.over or attempt.state is AttemptState.DRAINING:
        return noticed_too(run, attempt, fact.instance_id, deadline)
    noticed = replace(
        with_machine(attempt, replace(machine_on(attempt, fact.instance_id), deadline=deadline)),
        state=AttemptState.DRAINING, noticed_at=now, deadline=deadline, noticed_by=fact.source.value,
    )  # fmt: skip
    run = replace(with_attempt(run, noticed), recheck_after=_from_now_on(run, now))
    lead = max((deadline - now).total_seconds(), 0.0)
    text = f"EC2 takes {fact.instance_id} back in {lead:.0f} s ({fact.action}, told by {fact.source.value})"
    if fact.source is NoticeSource.DRAIN:
        text = f"host {attempt.pool.zone if attempt.pool else ''} is being drained: the run goes on elsewhere"
    return note(run, "notice", text, now, attempt.generation, deadline=deadline.isoformat(), source=fact.source.value)


@_apply.register
def _(fact: RebalanceRecommendation, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt_on(fact.instance_id)
    if attempt is None or attempt.over or attempt.rebalance_at is not None:
        return run
    run = with_attempt(run, replace(attempt, rebalance_at=now))
    text = f"EC2 sees {fact.instance_id} at elevated risk; the attempt checkpoints and stays"
    return note(run, "rebalance", text, now, attempt.generation)


@_apply.register
def _(fact: StateChange, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt_on(fact.instance_id)
    if attempt is None or not fact.state.is_over:
        return run
    machine = machine_on(attempt, fact.instance_id)
    if not machine.live:
        return run
    if fact.state in _VANISHED:
        attempt = with_machine(attempt, replace(machine, machine_gone_at=now))
        run = with_attempt(run, attempt)
        run = note(run, "gone", f"EC2 says that {fact.instance_id} is {fact.state.value}", now, attempt.generation)
    elif machine.ending_at is None:
        attempt = with_machine(attempt, replace(machine, ending_at=now))
        run = with_attempt(run, attempt)
    if attempt.over or has_spoken(run, attempt, fact.instance_id):
        return run
    return _lost(run, attempt, f"its machine {fact.instance_id} is {fact.state.value}", now, site)


@_apply.register
def _(fact: Observed, run: Run, now: datetime, site: Site) -> Run:
    for instance_id, state in fact.states:
        attempt = run.attempt_on(instance_id)
        machine = machine_on(attempt, instance_id) if attempt is not None else None
        if attempt is not None and machine is not None and machine.live:
            seen = with_machine(attempt, replace(machine, observed_at=now))
            run = with_attempt(run, replace(seen, unreachable_since=None))
            run = settle(run, _apply(StateChange(instance_id, state), run, now, site))
    for instance_id in fact.unreached:
        attempt = run.attempt_on(instance_id)
        if attempt is not None and attempt.live:
            run = settle(run, _unreached(run, attempt, now, site))
    return run


@_apply.register
def _(fact: LaunchAnswered, run: Run, now: datetime, site: Site) -> Run:
    if run.intent is None or run.intent.launch != fact.launch:
        return run
    intent = run.intent
    generation = intent.generation
    for refusal in fact.answer.refusals:
        text = f"EC2 refused {refusal.pool}: {refusal.code} ({refusal.scope.value})"
        run = note(run, "refused", text, now, generation, pool=str(refusal.pool), code=refusal.code)
    run = replace(run, intent=None, refusals=(*run.refusals, *fact.answer.refusals)[-REFUSALS_KEPT:])
    if fact.answer.instance_id is None:
        return replace(run, backoffs=run.backoffs + 1)
    price = intent.rate if fact.price is None else fact.price
    return _machine_given(run, intent, fact.answer, price, now)


@_apply.register
def _(fact: Priced, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt_on(fact.instance_id)
    if attempt is None or attempt.price is not None:
        return run
    return with_attempt(run, replace(attempt, price=fact.price))


@_apply.register
def _(fact: Paid, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt(fact.generation)
    if attempt is None or (attempt.paid_until is not None and attempt.paid_until >= fact.until):
        return run
    return with_attempt(replace(run, broke_until=None), replace(attempt, paid_until=fact.until))


@_apply.register
def _(fact: MoneyRefused, run: Run, now: datetime, site: Site) -> Run:
    first = run.broke_until is None
    run = replace(run, broke_until=asked_again_at(run, now, site.timings.scale))
    if run.intent is not None and run.intent.generation == fact.generation and run.intent.sent <= 1:
        run = replace(run, intent=None)  # nobody has sent it
    return note(run, "no-money", fact.why, now, fact.generation) if first else run


@_apply.register
def _(fact: MoneyBack, run: Run, now: datetime, site: Site) -> Run:
    return replace(run, broke_until=now) if is_broke(run, now) else run


@_apply.register
def _(fact: MachineFound, run: Run, now: datetime, site: Site) -> Run:
    machine = fact.machine
    answer = LaunchAnswer(machine.instance_id, machine.pool, (), tuple(each.instance_id for each in fact.others))
    return _apply(LaunchAnswered(machine.launch, answer), run, now, site)


@_apply.register
def _(fact: LaunchUnclear, run: Run, now: datetime, site: Site) -> Run:
    if run.intent is None or run.intent.launch != fact.launch:
        return run
    apart = 0.5 + spread(f"{run.run_id}.{run.intent.sent}")  # those throttled together part ways
    wait = site.timings.resend * min(2 ** max(run.intent.sent - 1, 0), 16) * apart
    run = replace(run, intent=replace(run.intent, due_at=now + wait))
    return note(run, "unclear", f"launch {fact.launch}: {fact.why}; the same request goes again", now)


@_apply.register
def _(fact: LaunchPostponed, run: Run, now: datetime, site: Site) -> Run:
    intent = run.intent
    if intent is None or intent.launch != fact.launch or intent.sent != fact.sent + 1:
        return run
    turn = fact.until if fact.in_turn else None
    run = replace(run, intent=replace(intent, due_at=fact.until, turn_at=turn, sent=fact.sent))
    wait = (fact.until - now).total_seconds()
    return note(run, "postponed", f"launch {fact.launch} goes in {wait:.0f} s: {fact.why}", now)


@_apply.register
def _(fact: LaunchAbandoned, run: Run, now: datetime, site: Site) -> Run:
    if run.intent is None or run.intent.launch != fact.launch:
        return run
    generation = run.intent.generation
    run = replace(run, intent=None)
    reserved = run.attempt(generation)
    if reserved is not None and reserved.state is AttemptState.RESERVED:
        run = _ended(run, reserved, "its launch was given up", now)  # a machine that shows up late is fenced
    return note(run, "abandoned", f"launch {fact.launch} made no machine and is not sent any more", now)


@_apply.register
def _(fact: TerminateAsked, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt_on(fact.instance_id)
    if attempt is None:
        return run
    if run.paused and attempt.state is AttemptState.BOOTING:
        attempt = replace(attempt, noticed_at=now, noticed_by=PAUSE)
    asked = with_machine(attempt, replace(machine_on(attempt, fact.instance_id), terminate_asked_at=now))
    return with_attempt(run, asked if attempt.over else replace(asked, terminate_asked_at=now))


@_apply.register
def _(fact: Verified, run: Run, now: datetime, site: Site) -> Run:
    name = f"{fact.generation}.{fact.save}"
    run = replace(run, verify_at=None)
    if fact.ok and name == run.noted_whole:
        return run  # compared again after a loss: once is enough for the timeline
    if fact.ok:
        run = replace(run, noted_whole=name)
        return note(run, "verified", f"checkpoint {name} is whole in S3", now, fact.generation, checkpoint=name)
    text = f"checkpoint {name} is condemned: {fact.problem}"
    return note(run, "condemned", text, now, fact.generation, checkpoint=name, problem=fact.problem)


@_apply.register
def _(fact: VerificationPostponed, run: Run, now: datetime, site: Site) -> Run:
    first = run.verify_at is None
    run = replace(run, verify_at=now + site.timings.settle)
    return note(run, "unverified", f"no verdict yet: {fact.why}", now) if first else run


@_apply.register
def _(fact: Compared, run: Run, now: datetime, site: Site) -> Run:
    return compared(run, fact, now)


@_apply.register
def _(fact: Collected, run: Run, now: datetime, site: Site) -> Run:
    upkeep = fact.upkeep
    if upkeep.due_at is None and not run.status.final:  # it was opened again while its bucket was tidied for good
        upkeep = replace(upkeep, due_at=now + site.timings.grace / 2)
    if upkeep.due_at is not None and run.status is RunStatus.PAUSED and not fact.deleted:
        upkeep = replace(upkeep, due_at=now + site.timings.rest)  # nobody writes meanwhile
    run = replace(run, upkeep=upkeep)
    if not fact.deleted and not fact.forgotten:
        return run
    about = f", the last of checkpoints {', '.join(fact.forgotten)}" if fact.forgotten else ""
    return note(run, "collected", f"{fact.deleted} objects deleted that no checkpoint names{about}", now)


@_apply.register
def _(fact: CollectionPostponed, run: Run, now: datetime, site: Site) -> Run:
    return replace(run, upkeep=replace(run.upkeep, due_at=now + site.timings.backoff_most))


@_apply.register
def _(fact: CancelRequested, run: Run, now: datetime, site: Site) -> Run:
    if run.cancel_why is not None or run.outcome is not None:
        return run
    return _concluded(replace(run, cancel_why=fact.why), RunStatus.CANCELLED, f"cancelled: {fact.why}", now)


@_apply.register
def _(fact: DrainAsked, run: Run, now: datetime, site: Site) -> Run:
    attempt = run.attempt(fact.generation)
    return run if attempt is None else drain_asked(run, attempt, fact, _from_now_on(run, now), site)


@_apply.register
def _(fact: StacksAsked, run: Run, now: datetime, site: Site) -> Run:
    return suspected(run, fact.generation, now)


@_apply.register
def _(fact: PauseRequested, run: Run, now: datetime, site: Site) -> Run:
    return pause(run, fact.why, now)


@_apply.register
def _(fact: ResumeRequested, run: Run, now: datetime, site: Site) -> Run:
    return resume(run, now)


@_apply.register
def _(fact: RetryRequested, run: Run, now: datetime, site: Site) -> Run:
    return retry(run, fact.why, spent(run, now), _from_now_on(run, now))


# Consequences


def conclude(run: Run, outcome: RunStatus, why: str, now: datetime) -> Run:
    """The run with its outcome known; its machines are still to be ended."""
    return settle(run, _concluded(run, outcome, why, now))


def _concluded(run: Run, outcome: RunStatus, why: str, now: datetime) -> Run:
    if run.outcome is not None:
        return run
    run = replace(awake(run, now), outcome=outcome, outcome_why=why, ended_at=now, silence=None, progress=None)
    return note(run, outcome.value, why, now)


def _ended(run: Run, attempt: Attempt, why: str, now: datetime) -> Run:
    ended = replace(attempt, state=AttemptState.ENDED, ended_at=now, ended_why=why)
    run = with_attempt(run, ended)
    return note(run, "ended", f"attempt {attempt.generation} ended: {why}", now, attempt.generation)


def _lost(run: Run, attempt: Attempt, why: str, now: datetime, site: Site) -> Run:
    run = replace(_ended(run, attempt, why, now), recheck_after=_from_now_on(run, now))
    if run.outcome is not None or not died_young(run, attempt):
        return run
    return replace(run, failures=run.failures + 1, retry_at=now + site.timings.crash)


def _unreached(run: Run, attempt: Attempt, now: datetime, site: Site) -> Run:
    """A host that does not answer: unknown, until silence says that the attempt is over, its rights that it is gone.

    The floor fences the attempt, so that its machine may still run without doing harm. It gets no rights any more.
    """
    timings = site.timings
    attempt = replace(attempt, observed_at=now, unreachable_since=attempt.unreachable_since or now)
    run, generation = with_attempt(run, attempt), attempt.generation
    if attempt.over:
        if attempt.ended_at is None or now < attempt.ended_at + timings.rights:
            return run
        run = with_attempt(run, replace(attempt, machine_gone_at=now))
        return note(run, "gone", f"{attempt.instance_id} is out of reach, and its rights have ended", now, generation)
    still = _why_given_up(run, attempt, now, site)
    return _lost(run, attempt, f"its host is out of reach: {still}", now, site) if still else run


def _why_given_up(run: Run, attempt: Attempt, now: datetime, site: Site) -> str:
    """Why an attempt on a host that does not answer counts as over; empty while it may still come back."""
    timings = site.timings
    if attempt.beating_at is None and attempt.launched_at is not None and now >= attempt.launched_at + timings.boot:
        return "it never sent a heartbeat"
    if is_silent(run, attempt, 0, now, timings.hopeless):
        return f"no heartbeat for {timings.hopeless.total_seconds():.0f} s"
    until = attempt.deadline if attempt.state is AttemptState.DRAINING else None
    if until is not None and now >= until + timings.after_deadline:
        return "its time to drain is over"  # the next attempt waits for its lease, and is the one that is listened to
    return ""


def _machine_given(run: Run, intent: Intent, answer: LaunchAnswer, price: float | None, now: datetime) -> Run:
    generation, pool = intent.generation, answer.pool
    attempt = run.attempt(generation)
    if attempt is None or attempt.state is not AttemptState.RESERVED:
        return run
    if price is None and pool is not None:
        price = run.spec.limits.on_demand_price(pool)
    run, kept = taken_over(run, intent, now)
    members = (*kept, *(Member(each, now) for each in answer.instance_ids))
    given = replace(
        attempt, state=AttemptState.BOOTING, instance_id=members[0].instance_id, pool=pool, price=price,
        launched_at=now, transfer=intent.transfer, members=members if run.spec.nodes > 1 else (),
    )  # fmt: skip
    run = replace(with_attempt(run, given), backoffs=0)
    names = ", ".join(member.instance_id for member in members)
    text = f"attempt {generation} has machine{'s' * (len(members) > 1)} {names} in {pool}"
    run = note(run, "launched", text, now, generation, instance=given.instance_id, pool=str(pool))
    return run if len(members) >= run.spec.nodes else _incomplete(run, given, now)


def _incomplete(run: Run, attempt: Attempt, now: datetime) -> Run:
    """A part of a gang is no gang: what came is ended, and its pool counts as one that refused."""
    why = f"EC2 gave {len(attempt.members)} of {run.spec.nodes} machines"
    if attempt.pool is not None:
        refusal = Refusal(attempt.pool, FailureScope.POOL, "IncompleteGang", why, now)
        run = replace(run, refusals=(*run.refusals, refusal)[-REFUSALS_KEPT:])
    return replace(_ended(run, attempt, why, now), backoffs=run.backoffs + 1)
