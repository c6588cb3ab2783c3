"""What follows from everything recorded about a run. Pure: the answer, with its reason, and no act.

Read `decide` from the top: the rules stand in the order in which they are asked, and the first
that has something to do decides. Whoever acts on a decision first writes what `claim` makes of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from spotrelay.core.breaker import is_kept, kept_until, protected
from spotrelay.core.checkpoint import Checkpoint, awaiting_verification, last_condemned_at, resume_candidate
from spotrelay.core.comparing import compare, next_looks
from spotrelay.core.decisions import (
    AskStacks,
    Collect,
    Conclude,
    Decision,
    Drain,
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
from spotrelay.core.experience import SUPPOSED, Experience, worth
from spotrelay.core.gang import is_packing, left_behind, parting_moments
from spotrelay.core.hang import stands_still, why_hung
from spotrelay.core.hosts import is_host
from spotrelay.core.lifecycle import hours_end, leaves_its_host, machines_so_far, why_let_go
from spotrelay.core.markets import change_market, choose, lost_pools, next_judgement
from spotrelay.core.outlook import Outlook, believed, question_of, said, weighed
from spotrelay.core.placement import FailureScope, Pool, next_rung, reopens_at
from spotrelay.core.reunion import Reunion, reunion, rung_of, waits
from spotrelay.core.room import why_full
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus, silence_of
from spotrelay.core.scored import scored
from spotrelay.core.silence import is_silent
from spotrelay.core.site import Site
from spotrelay.core.spec import NoCheckpoint, pools_of
from spotrelay.core.spending import (
    dearest,
    drained_for_limit,
    moments,
    no_money,
    out_of_money,
    pay,
    price_of,
    spent,
    transfer_of,
)


def decide(run: Run, now: datetime, site: Site) -> Decision:
    """The next thing to do for this run, and why."""
    if run.status.final:
        return _fence(run) or _collect(run, now, site) or _last_look(run)
    fence = _fence(run)
    if fence is not None:
        return fence
    waits = []
    for rule in (
        _limits,
        _end_machines,
        _pending_launch,
        _drain,
        _ask_stacks,
        _replace_noticed,
        _verify,
        _need_machine,
        pay,
        compare,
        _recheck,
        _observe,
        _collect,
    ):
        decision = rule(run, now, site)
        if isinstance(decision, Wait):
            waits.append(decision)
        elif decision is not None:
            return decision
    waits.append(Wait(_next_look(run, now, site), _waiting_for(run)))
    return replace(waits[0], until=min(wait.until for wait in waits))


# The rules


def _fence(run: Run) -> Fence | None:
    """Whoever ended is shut out before anything else happens."""
    ended = max((a.generation for a in run.attempts if a.over), default=0)
    if run.outcome is not None and run.current is not None:
        ended = run.current.generation
    if run.lease is None or run.lease.floor > ended:
        return None
    return Fence(ended + 1, f"attempt {ended} is over and may not commit any more")


def _limits(run: Run, now: datetime, site: Site) -> Decision | None:
    """Time and money end a run wherever it stands."""
    limits = run.spec.limits
    if run.outcome is not None:
        return None
    end = hours_end(run)
    if end is not None and now >= end:
        since = "submitted" if run.opened_after == 0 else "retried"
        return Conclude(RunStatus.FAILED, f"limits.max_hours reached: {limits.max_hours:g} hours since it was {since}")
    if limits.max_dollars is not None and spent(run, now) >= limits.max_dollars:
        return Conclude(
            RunStatus.FAILED, f"limits.max_dollars reached: {spent(run, now):.2f} of {limits.max_dollars:.2f}"
        )
    return None


def _end_machines(run: Run, now: datetime, site: Site) -> Decision | None:
    for attempt in run.live:
        reasons = {
            machine.instance_id: why
            for node, machine in enumerate(attempt.machines)
            if machine.live and (why := _reason_to_end(run, attempt, node, now, site))
            if machine.terminate_asked_at is None or now >= machine.terminate_asked_at + site.timings.settle * 4
        }
        if reasons:
            first, *others = reasons
            return Terminate(first, reasons[first], tuple(others))
    return None


def _reason_to_end(run: Run, attempt: Attempt, node: int, now: datetime, site: Site) -> str:
    """Why this machine should be ended now; empty when it should not."""
    timings, machine = site.timings, attempt.machines[node]
    if let_go := why_let_go(run, attempt, now):
        return let_go
    deadline = None if attempt.let_go and not attempt.members else machine.deadline
    if deadline is not None and now < deadline + timings.after_deadline:
        return ""  # EC2 takes it by itself; ending it would forfeit the refund of a first hour
    if deadline is not None:
        return "it was to be taken back, and is still there"
    if machine.ending_at is not None and now < machine.ending_at + timings.settle * 4:
        return ""  # it is on its way out already
    if is_kept(run, attempt, now):
        return ""  # a person wants to look at it
    if run.outcome is not None:
        return "" if is_packing(run, attempt, node, now, site) else f"the run {run.outcome.value}"
    if attempt.members and waits(run, machine.instance_id, now, site):
        return ""
    if attempt.over:
        return f"attempt {attempt.generation} ended: {attempt.ended_why}"
    if attempt.members and attempt.deadline is not None:
        return left_behind(attempt, now, site)
    if machine.beating_at is None and machine.launched_at and now >= machine.launched_at + timings.boot:
        return f"no heartbeat within {timings.boot.total_seconds():.0f} s of its launch"
    if is_silent(run, attempt, node, now, timings.hopeless) and _seen_alive(run, attempt, node):
        return f"its heartbeat has stood still for {timings.hopeless.total_seconds():.0f} s although its machine runs"
    return why_hung(run, attempt, now, site)


def _seen_alive(run: Run, attempt: Attempt, node: int) -> bool:
    observed_at, s = attempt.machines[node].observed_at, silence_of(run, attempt.generation, node)
    answered = observed_at is not None and attempt.unreachable_since is None
    return answered and s is not None and observed_at is not None and observed_at >= s.since


def _pending_launch(run: Run, now: datetime, site: Site) -> Decision | None:
    intent = run.intent
    if intent is None or (intent.due_at is not None and now < intent.due_at):
        return None
    if run.outcome is not None:
        return Resolve(intent, f"the run {run.outcome.value} while launch {intent.launch} was open")
    if run.paused:
        return Resolve(intent, f"the run was paused while launch {intent.launch} was open")
    if not site.launches_allowed:
        off = "launches are switched off"
        return Resolve(intent, off) if intent.sent else Wait(now + site.timings.watch, off)
    return Send(intent, intent.why if intent.sent == 0 else f"launch {intent.launch} again: its outcome is not known")


def _drain(run: Run, now: datetime, site: Site) -> Decision | None:
    """Whoever trains in a run that is to rest, to go on elsewhere, or to leave its host, saves first."""
    leaves = next((a for a in run.live if leaves_its_host(a)), None)
    if leaves is not None and run.outcome is None:
        return Drain(leaves.generation, "its host is being drained")
    current = run.current
    if run.outcome is not None or current is None or current.state is not AttemptState.RUNNING:
        return None
    if run.paused:
        return Drain(current.generation, f"the run is to be paused: {run.pause_why}")
    return out_of_money(run, current, now, site) or change_market(run, current, now, site)


def _ask_stacks(run: Run, now: datetime, site: Site) -> Decision | None:
    """Before a program that gets nowhere is ended it says where it stands."""
    current = run.current
    if run.outcome is not None or current is None or current.hung_at is not None:
        return None
    if stands_still(run, current, now, site) is None:
        return None
    return AskStacks(current.generation, f"nothing has followed step {current.last_step} for too long")


def _replace_noticed(run: Run, now: datetime, site: Site) -> Decision | None:
    """A notice costs seconds: the next machine is asked for first, everything else follows."""
    current = run.current
    if run.outcome is not None or run.paused or current is None or current.state is not AttemptState.DRAINING:
        return None
    cause = f"it makes way: {current.noticed_by}" if current.let_go else "its machine is being taken back"
    return _reserve(run, current.generation + 1, cause, now, site)


def _verify(run: Run, now: datetime, site: Site) -> Decision | None:
    if run.outcome in (RunStatus.FAILED, RunStatus.CANCELLED) or (run.verify_at is not None and now < run.verify_at):
        return None
    waiting = awaiting_verification(run.checkpoints)
    if waiting:
        return Verify(_newest_first(waiting), "committed, not yet compared with S3")
    candidate = resume_candidate(run.checkpoints)
    if candidate is None or not candidate.is_stale(run.recheck_after) or run.outcome is not None:
        return None
    return Verify((candidate,), "the machine was lost since it was last compared with S3")


def _recheck(run: Run, now: datetime, site: Site) -> Decision | None:
    """What was found damaged in one checkpoint may be in others, whatever was found of them before."""
    if run.outcome is not None or (run.verify_at is not None and now < run.verify_at):
        return None
    since = last_condemned_at(run.checkpoints)
    doubtful = tuple(c for c in run.checkpoints if c.verified and c.usable and c.is_stale(since))
    if not doubtful:
        return None
    return Recheck(_newest_first(doubtful), "another checkpoint was condemned since, and they may share a shard")


def _newest_first(checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    return tuple(sorted(checkpoints, key=lambda c: c.id, reverse=True))


def _need_machine(run: Run, now: datetime, site: Site) -> Decision | None:
    current = run.current
    if run.outcome is not None or run.intent is not None or run.paused:
        return None
    if current is None:
        return _reserve(run, 1, "submitted", now, site)
    if current.state is AttemptState.RESERVED:
        return _reserve(run, current.generation, "the last launch gave no machine", now, site)
    if not current.over:
        return None
    unverified = _unverified_hold(run, current, now, site)
    return unverified or _reserve(run, current.generation + 1, current.ended_why, now, site)


def _unverified_hold(run: Run, current: Attempt, now: datetime, site: Site) -> Decision | None:
    """While S3 gives no answer a launch waits for the verdict, for a bounded time."""
    bound = (current.ended_at or now) + site.timings.verification
    if run.verify_at is not None and now < min(run.verify_at, bound):
        return Wait(min(run.verify_at, bound), "the newest checkpoint could not be verified yet")
    return None


def _reserve(run: Run, generation: int, cause: str, now: datetime, site: Site) -> Decision | None:
    """The next launch, or why there is none. Asked before every launch: limits, switch, ladder."""
    if run.intent is not None:
        return None
    again = reunion(run, now, site)
    wanted = again.missing if again is not None else run.spec.nodes
    forbidden = _spec_forbids(run, generation, wanted) or _ec2_forbids(run)
    if forbidden:
        at_work = _at_work_until(run, site)
        hopeless = at_work is None or now >= at_work
        return Conclude(RunStatus.FAILED, forbidden) if hopeless else Wait(at_work or now, "it may finish in time")
    if run.retry_at is not None and now < run.retry_at:
        return Wait(run.retry_at, "a short pause after a failure")
    if not site.launches_allowed:
        return Wait(now + site.timings.watch, "launches are switched off")
    reunited = _reunite(run, generation, cause, again, now, site) if again is not None else None
    return no_money(run, now) or reunited or _climb(run, generation, cause, now, site)


def _reunite(run: Run, generation: int, cause: str, again: Reunion, now: datetime, site: Site) -> Decision | None:
    """The launch that fills a gang up; None where the whole gang has to move."""
    rung = rung_of(again, run, now, site)
    if isinstance(rung, datetime):
        return Wait(min(rung, again.until), "the survivors of the gang wait for others in their zone")
    if not _affordable(run, rung.pools, site):
        return None
    known = dearest(rung.pools, run.spec.limits, site.prices)
    return Reserve(rung, generation, run.launches + 1, f"{cause}; next: {rung.why}", known)


def _spec_forbids(run: Run, generation: int, wanted: int) -> str:
    """Which line of the spec, if any, rules out another launch."""
    spec, limits = run.spec, run.spec.limits
    if not spec.failover and generation > run.excused + 1:
        return "the machine was lost and failover is off for this run"
    machines = machines_so_far(run)
    if machines + wanted > limits.max_launches:
        return f"limits.max_launches reached: {machines} machines"
    if run.failures >= limits.max_failures:
        how = run.current.ended_why if run.current is not None else ""
        return f"limits.max_failures reached: {protected(run, how, '')}"
    if drained_for_limit(run):
        return f"limits.max_dollars reached: {limits.max_dollars:g}; the last attempt was asked to save before"
    if spec.on_no_checkpoint is NoCheckpoint.STOP and _progress_without_checkpoint(run):
        return "no verified checkpoint exists, and the spec says to stop rather than to start from zero"
    return why_full(run) if run.attempt(generation) is None else ""


def _ec2_forbids(run: Run) -> str:
    """What is wrong with the run or the stack, as EC2 told it: no rung of the ladder helps."""
    fatal = next((r for r in run.refusals if r.scope is FailureScope.CONFIGURATION), None)
    if fatal is None:
        return ""
    return f"EC2 cannot launch this run as configured: {fatal.code}: {fatal.message}. Mend it, then submit again"


def _at_work_until(run: Run, site: Site) -> datetime | None:
    """How long an attempt that is being taken back may still finish, or save what it has."""
    draining = (a for a in run.live if a.state is AttemptState.DRAINING and a.drained_at is None)
    return max((a.deadline + site.timings.after_deadline for a in draining if a.deadline), default=None)


def _progress_without_checkpoint(run: Run) -> bool:
    trained = any(a.first_step_at is not None and a.over for a in run.attempts)
    return trained and not any(c.usable for c in run.checkpoints)


def _climb(run: Run, generation: int, cause: str, now: datetime, site: Site) -> Decision:
    scale = site.timings.scale
    allowed = pools_of(run.spec, site.zones, site.own)
    if not allowed:
        why = "no subnet of the stack lies in the zones that the spec allows: widen zones, or deploy more"
        return Conclude(RunStatus.FAILED, why)
    pools = _affordable(run, allowed, site)
    if not pools:
        return Wait(now + site.timings.watch, "no price is known for any pool, and there is a dollar ceiling")
    lasting, outlook = _expected(run, allowed, pools, now, site)
    progress = scored(run, pools, lasting, site)
    choice = choose(run, pools, now, site)
    rungs = (next_rung(group, run.refusals, lost_pools(run), now, scale, lasting, progress) for group in choice.groups)
    rung = next((rung for rung in rungs if rung is not None), None)
    backoff = site.timings.backoff * 2.0 ** min(max(run.backoffs - 1, 0), 6)
    if rung is None:
        until = max(reopens_at(pools, run.refusals, now, scale) or now, now + min(backoff, site.timings.backoff_most))
        until = until if choice.until is None else min(until, max(choice.until, now + timedelta(seconds=1)))
        return Wait(until, choice.why or "every pool that the spec allows has refused lately")
    rung = replace(rung, nodes=run.spec.nodes, placement_group=run.spec.placement_group)
    known = dearest(rung.pools, run.spec.limits, site.prices)
    why = f"{cause}; next: {rung.why}{said(outlook, rung.pools, now)}{choice.because}"
    return Reserve(rung, generation, run.launches + 1, why, known, transfer_of(run, rung, site))


def _expected(
    run: Run, allowed: tuple[Pool, ...], pools: tuple[Pool, ...], now: datetime, site: Site
) -> tuple[dict[Pool, float], Outlook]:
    """Hours that a machine of each pool may be expected to last, and what EC2 says of the zones."""
    experience, scale = site.experience or Experience(), site.timings.scale
    outlook = believed(experience.outlooks, question_of(allowed, run.spec.nodes), now, scale)
    lasting = worth(experience, pools, now, scale)
    return weighed(lasting, pools, outlook, SUPPOSED * scale / timedelta(hours=1)), outlook


def _affordable(run: Run, pools: tuple[Pool, ...], site: Site) -> tuple[Pool, ...]:
    if run.spec.limits.max_dollars is None and site.budget is None:
        return pools
    return tuple(p for p in pools if price_of(p, run.spec.limits, site.prices) is not None)


def _observe(run: Run, now: datetime, site: Site) -> Decision | None:
    doubtful = tuple(
        machine.instance_id
        for attempt in run.live
        for node, machine in enumerate(attempt.machines)
        if machine.live and _doubtful(run, attempt, node, now, site)
    )
    return Observe(doubtful, "no news from them") if doubtful else None


def _doubtful(run: Run, attempt: Attempt, node: int, now: datetime, site: Site) -> bool:
    """Whether EC2 should be asked about this machine now."""
    timings, machine = site.timings, attempt.machines[node]
    last = max(t for t in (machine.observed_at, machine.terminate_asked_at, machine.launched_at, run.created_at) if t)
    if machine.terminate_asked_at is not None or attempt.over:
        return now >= last + (timings.watch if is_kept(run, attempt, now) else timings.settle / 2)
    if attempt.parted_at is not None:
        asked_at = machine.observed_at
        return asked_at is None or asked_at < attempt.parted_at or now >= asked_at + timings.settle
    if machine.beating_at is None:
        return now >= last + timings.watch
    overdue = attempt.deadline is not None and now >= attempt.deadline
    if attempt.drained_at is not None and attempt.pool is not None and is_host(attempt.pool.region):
        return now >= last + timings.settle  # no event tells that it has gone
    return (overdue or is_silent(run, attempt, node, now, timings.silence)) and now >= last + timings.watch / 2


def _collect(run: Run, now: datetime, site: Site) -> Decision | None:
    """Last of all, since nobody waits for it."""
    due_at = run.upkeep.due_at
    if due_at is None or now < due_at:
        return None
    return Collect("what no checkpoint names any more is deleted after a grace")


def _last_look(run: Run) -> Decision:
    over = f"the run {run.status.value}"
    return Wait(run.upkeep.due_at, f"{over}; its bucket is still being tidied") if run.upkeep.due_at else Rest(over)


# When to look again


def _next_look(run: Run, now: datetime, site: Site) -> datetime:
    later = [moment for moment in _moments(run, now, site) if moment > now]
    at_most = site.timings.rest if run.status is RunStatus.PAUSED else site.timings.watch
    return min([*later, now + at_most] if run.paused else later, default=now + at_most)


def _moments(run: Run, now: datetime, site: Site) -> Iterator[datetime]:
    """Every time at which a rule above may give another answer without any news."""
    timings = site.timings
    if run.live:
        yield now + timings.watch
    yield from moments(run, now, site)
    yield from next_judgement(run, now, site)
    yield from (t for t in (hours_end(run), run.verify_at, run.retry_at, run.upkeep.due_at) if t)
    if run.intent is not None and run.intent.due_at is not None:
        yield run.intent.due_at
    for attempt in run.live:
        if attempt.deadline is not None:
            yield attempt.deadline
            yield attempt.deadline + timings.after_deadline
        kept = kept_until(run, attempt)
        if kept is not None and now < kept:
            yield kept
        elif attempt.over or any(m.terminate_asked_at is not None for m in attempt.machines):
            yield now + timings.settle / 2
        yield from parting_moments(run, attempt, site)
    yield from next_looks(run, site)
    again = reunion(run, now, site)
    if again is not None:
        yield again.until


def _waiting_for(run: Run) -> str:
    current = run.current
    if run.outcome is not None:
        return "its machines are ending"
    if run.paused:
        return "it is paused" if run.status is RunStatus.PAUSED else "it is to be paused; its machines save and end"
    if current is None or current.state is AttemptState.RESERVED:
        return "a launch is open"
    return {
        AttemptState.BOOTING: f"attempt {current.generation} is booting",
        AttemptState.RUNNING: f"attempt {current.generation} is training",
        AttemptState.DRAINING: f"attempt {current.generation} is draining",
        AttemptState.ENDED: "the next attempt is being prepared",
    }[current.state]
