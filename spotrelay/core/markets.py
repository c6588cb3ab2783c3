"""Spot or on-demand: which market a launch may ask, and when a machine is left for the other one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from spotrelay.core.checkpoint import Checkpoint, resume_candidate
from spotrelay.core.deadline import Judgement, Urgency, Work, judge
from spotrelay.core.decisions import Drain
from spotrelay.core.experience import worth
from spotrelay.core.lifecycle import machines_so_far
from spotrelay.core.placement import LOST_FOR, Market, Pool
from spotrelay.core.run import FOR_ON_DEMAND, FOR_SPOT, Attempt, AttemptState, Run
from spotrelay.core.scoring import start_of
from spotrelay.core.site import Site
from spotrelay.core.spec import OwnMachines, pools_of

SUPPOSED_CHANGE = timedelta(minutes=6)  # from a launch to the first new step, before this run has shown it
SUPPOSED_LASTING = timedelta(hours=1)  # of a Spot machine, where nothing is known
STAY = timedelta(minutes=30)  # on on-demand at least, before Spot is tried again; doubles with each return
STAY_MOST = timedelta(hours=8)
RETURNS_COUNT = timedelta(days=1)  # returns that long ago are forgotten
LEAST_SAVING = 0.1  # of the price: less is weather
QUICKEST = timedelta(minutes=1)  # that a change is taken to cost at least
WORTH_IT = 2.0  # the saving has to be so many times the cost: prices and lives are guesses
FRESH = timedelta(minutes=3)  # a checkpoint that was verified within this is a good moment to change


@dataclass(frozen=True)
class Choice:
    """The pools that a launch may ask, in groups: the second only when the first has nothing."""

    groups: tuple[tuple[Pool, ...], ...]
    why: str = ""  # empty where nothing but the spec's own order speaks
    until: datetime | None = None  # when another group may open

    @property
    def because(self) -> str:
        """For the end of a sentence."""
        return f" ({self.why})" if self.why else ""


def choose(run: Run, pools: tuple[Pool, ...], now: datetime, site: Site) -> Choice:
    """Which markets the next launch may ask."""
    own = tuple(p for p in pools if p.market == Market.OWN.value)
    if own:
        return _with_own(run, own, tuple(p for p in pools if p not in own), now, site)
    bought = tuple(p for p in pools if Market(p.market).is_reserved)
    if bought:
        others = tuple(p for p in pools if p not in bought)
        rest = choose(run, others, now, site) if others else Choice(())
        return replace(rest, groups=(bought, *rest.groups))
    spot = tuple(p for p in pools if p.market == Market.SPOT.value)
    on_demand = tuple(p for p in pools if p.market != Market.SPOT.value)
    if not spot or not on_demand:
        return Choice((pools,))
    judged = in_time(run, now, site)
    forced = _forced_on_demand(run, judged, now, site)
    if forced:
        return Choice((on_demand, spot), forced)
    if judged is not None and judged.last is not None and now + change_time(run) >= judged.last:
        return Choice((on_demand, spot), f"{judged.why}; by the time a Spot machine trains it would have to be left")
    if judged is not None and judged.urgency is Urgency.BEHIND:
        return Choice((spot, on_demand), judged.why)
    if judged is not None:
        return Choice((spot,), f"{judged.why}; waiting for Spot", judged.until)
    opens = on_demand_opens(run, site.timings.scale)
    if opens is not None and now < opens:
        return Choice((spot,), "waiting for Spot, as on_demand_after_s says", opens)
    return Choice((pools,), "" if opens is None else f"no Spot machine for {run.spec.on_demand_after_s:g} s")


def _with_own(run: Run, own: tuple[Pool, ...], others: tuple[Pool, ...], now: datetime, site: Site) -> Choice:
    """The choice with hosts of one's own before it or after it. One that was lost lately waits for all the others.

    A host on which a machine of the run may still be at work takes no second one: they would share its GPUs.
    """
    rest = choose(run, others, now, site) if others else Choice(())
    at_work = {attempt.pool.region for attempt in run.live if attempt.pool is not None}
    own = tuple(pool for pool in own if pool.region not in at_work)
    lost = {pool for pool, at in lost_pools(run) if now < at + LOST_FOR * site.timings.scale}
    fresh, late = tuple(p for p in own if p not in lost), tuple(p for p in own if p in lost)
    first = run.spec.own_machines is OwnMachines.FIRST
    groups = (fresh, *rest.groups, late) if first else (*rest.groups, fresh, late)
    return replace(rest, groups=tuple(group for group in groups if group))


def lost_pools(run: Run) -> tuple[tuple[Pool, datetime], ...]:
    """Where machines of this run were taken or vanished, and when."""
    moments = ((a.pool, _lost_at(a)) for a in run.attempts if not a.let_go)
    return tuple((pool, at) for pool, at in moments if pool is not None and at is not None)


def _lost_at(attempt: Attempt) -> datetime | None:
    """When its machine was taken or vanished, as far as the attempt tells; None while it stands, or failed itself."""
    return attempt.noticed_at or (None if attempt.crashed else attempt.ended_at)


def _forced_on_demand(run: Run, judged: Judgement | None, now: datetime, site: Site) -> str:
    """Why the run must not be on Spot at present; empty when it may."""
    spec = run.spec
    if not spec.on_demand:
        return ""
    if judged is not None and judged.urgency is Urgency.MUST:
        return judged.why
    most = spec.on_demand_after_losses
    window = timedelta(seconds=spec.losses_within_s) * site.timings.scale
    losses = [at for at in lost_at(run) if at > now - window]
    if most is not None and len(losses) >= most:
        return f"{len(losses)} Spot machines lost within {window.total_seconds():.0f} s"
    return ""


def change_market(run: Run, current: Attempt, now: datetime, site: Site) -> Drain | None:
    """Whether the attempt that trains should make way for one in the other market."""
    if not run.spec.on_demand or current.first_step_at is None or current.pool is None or not _may_go_on(run, site):
        return None
    if Market(current.pool.market).is_reserved or current.pool.market == Market.OWN.value:
        return None  # nobody takes them back, and they are paid for
    if current.pool.market != Market.SPOT.value:
        why = worth_returning(run, current, now, site)
        return Drain(current.generation, why, FOR_SPOT) if why else None
    judged = in_time(run, now, site)
    if judged is None or judged.urgency is not Urgency.MUST:
        return None
    return Drain(current.generation, judged.why, FOR_ON_DEMAND)


def next_judgement(run: Run, now: datetime, site: Site) -> Iterator[datetime]:
    """When the deadline may ask for something else, if nothing happens before."""
    judged = in_time(run, now, site) if run.outcome is None else None
    if judged is not None and judged.until is not None:
        yield judged.until


def may_return(run: Run) -> bool:
    """Whether Spot's prices have to be known to tell if on-demand is to be left."""
    current = run.current
    bought = current is not None and current.pool is not None and current.pool.market == Market.ON_DEMAND.value
    return bought and run.spec.on_demand and run.spec.back_to_spot


def _may_go_on(run: Run, site: Site) -> bool:
    """Whether another launch would be made at all: nobody leaves a machine for none."""
    launches = run.spec.limits.max_launches - machines_so_far(run)
    return run.spec.failover and site.launches_allowed and run.broke_until is None and launches > run.spec.nodes


def worth_returning(run: Run, current: Attempt, now: datetime, site: Site) -> str:
    """Why leaving on-demand for Spot pays at this moment; empty when it does not, or is not known to."""
    judged = in_time(run, now, site)
    checkpoint = resume_candidate(run.checkpoints)
    calm = judged is None or judged.urgency is Urgency.AHEAD
    if (
        not calm
        or not run.spec.back_to_spot
        or _forced_on_demand(run, judged, now, site)
        or not _fresh(checkpoint, current, now, site)
    ):
        return ""
    if now < (current.first_step_at or now) + stay(run, now, site.timings.scale):
        return ""
    spot, paid = _cheapest_spot(run, now, site), current.price
    if spot is None or paid is None:
        return ""
    pool, price = spot
    hours = _hours_there(run, pool, now, site)
    lost = max(change_time(run), QUICKEST * site.timings.scale) + redone(run)
    cost = price * (lost / timedelta(hours=1))
    saving = (paid - price) * hours
    if saving <= WORTH_IT * cost or price > paid * (1 - LEAST_SAVING):
        return ""
    what = f"{pool} at ${price:.2f} instead of ${paid:.2f} an hour saves ${saving:.2f} in {hours:.1f} h"
    return f"{what}, and the change costs ${cost:.2f}"


def on_demand_opens(run: Run, scale: float = 1.0) -> datetime | None:
    """When on-demand may be asked, since no Spot machine was to be had for so long; None: with the rest."""
    after, current = run.spec.on_demand_after_s, run.current
    if after is None or (current is not None and current.noticed_by == FOR_SPOT):
        return None
    trained = [a.drained_at or a.ended_at or a.noticed_at for a in run.attempts if a.first_step_at is not None]
    since = max((at for at in trained if at is not None), default=run.created_at)
    return since + timedelta(seconds=after) * scale


def lost_at(run: Run) -> Iterator[datetime]:
    """When Spot machines of this run were taken, or died."""
    for attempt in run.attempts:
        at = _lost_at(attempt)
        ours = attempt.crashed or attempt.let_go or attempt.noticed_by == "program"
        spot = attempt.pool is not None and attempt.pool.market == Market.SPOT.value
        if spot and at is not None and not ours and attempt.launched_at is not None:
            yield at


def stay(run: Run, now: datetime, scale: float) -> timedelta:
    """How long on-demand is kept at least: longer after each return that did not last."""
    recent = sum(
        a.noticed_by == FOR_SPOT and a.noticed_at is not None and now - a.noticed_at < RETURNS_COUNT * scale
        for a in run.attempts
    )
    return min(STAY * 2.0 ** min(recent, 8), STAY_MOST) * scale


def change_time(run: Run) -> timedelta:
    """What it takes to change to another machine, until that one trains."""
    return start_of(run, SUPPOSED_CHANGE)


def redone(run: Run) -> timedelta:
    """Training that a change has to do again: what this run's own drains left uncommitted, in the mean."""
    lost = [
        (a.last_step - (heir.resumed_from or 0)) * _pace(a)
        for a, heir in zip(run.attempts, run.attempts[1:], strict=False)
        if a.drained_at is not None and heir.resumed_from is not None and a.last_step > heir.resumed_from
    ]
    drains = sum(a.drained_at is not None for a in run.attempts)
    return sum(lost, timedelta(0)) / drains if drains else timedelta(0)


# How far the run has come


def in_time(run: Run, now: datetime, site: Site) -> Judgement | None:
    """How urgent the deadline is; None where there is none, or on-demand may not be asked."""
    deadline, current = run.spec.deadline_after(run.created_at), run.current
    if deadline is None or not run.spec.on_demand:
        return None
    found = work(run, now)
    if found is None:
        return Judgement(Urgency.BEHIND, "there is a deadline, and nobody knows yet how much is to be done")
    trains = current is not None and current.state is AttemptState.RUNNING and current.pool is not None
    bought = trains and current is not None and current.pool is not None and current.pool.market != Market.SPOT.value
    return judge(found, run.created_at, deadline, now, bought)


def work(run: Run, now: datetime) -> Work | None:
    """The run's work in training time; None before a pace and the number of steps are known, or expected hours.

    What is done is what the newest checkpoint holds that may be resumed from.
    """
    total = run.spec.total_steps or max((beat.total for beat in run.heartbeats), default=0)
    pace, expected = pace_of(run, now), run.spec.training_hours
    safe = resume_candidate(run.checkpoints)
    step = safe.commit.step if safe is not None else 0
    if total and pace is not None:
        return Work(step * pace, max(total - step, 0) * pace, change_time(run))
    if expected is None:
        return None
    whole = timedelta(hours=expected)
    done = whole * min(step / total, 1.0) if total else timedelta(0)
    return Work(done, whole - done, change_time(run))


def pace_of(run: Run, now: datetime) -> timedelta | None:
    """Training time of a step, over all attempts; the newest counts once it has done some."""
    time, steps = timedelta(0), 0
    for attempt in run.attempts:
        done = attempt.last_step - (attempt.resumed_from or 0)
        if attempt.first_step_at is None or done < 2:
            continue
        end = min(t for t in (attempt.drained_at, attempt.ended_at, now) if t is not None)
        time += max(end - attempt.first_step_at, timedelta(0))
        steps += done - 1
    return time / steps if steps and time > timedelta(0) else None


def _pace(attempt: Attempt) -> timedelta:
    done = max(attempt.last_step - (attempt.resumed_from or 0), 1)
    end = attempt.drained_at or attempt.ended_at or attempt.first_step_at
    start = attempt.first_step_at
    return max(end - start, timedelta(0)) / done if start is not None and end is not None else timedelta(0)


def _fresh(checkpoint: Checkpoint | None, current: Attempt, now: datetime, site: Site) -> bool:
    """Whether the newest checkpoint is this attempt's own and was verified a moment ago."""
    if checkpoint is None or checkpoint.commit.generation != current.generation or checkpoint.verdict is None:
        return False
    checked = checkpoint.verdict.checked_at
    return checked is not None and now - checked < FRESH * site.timings.scale


def _cheapest_spot(run: Run, now: datetime, site: Site) -> tuple[Pool, float] | None:
    pools = [p for p in pools_of(run.spec, site.zones) if p.market == Market.SPOT.value]
    known = [(p, site.prices[p]) for p in pools if site.prices is not None and p in site.prices]
    return min(known, key=lambda each: each[1], default=None)


def _hours_there(run: Run, pool: Pool, now: datetime, site: Site) -> float:
    """How long the saving may be expected to last: until the machine is lost, or the run is done."""
    known = worth(site.experience, (pool,), now, site.timings.scale) if site.experience else {}
    lasting = timedelta(hours=known[pool]) if pool in known else SUPPOSED_LASTING * site.timings.scale
    left = work(run, now)
    return (min(lasting, left.left) if left is not None else lasting) / timedelta(hours=1)
