"""What a run has to pay for, and when: rules over a run, for the account's budget and for its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta

from spotrelay.core.budget import MICRO, SHORTEST, Budget, Hold, cost, midnight_after, paid_until
from spotrelay.core.clockwork import spread
from spotrelay.core.comparing import regions_with
from spotrelay.core.decisions import Conclude, Decision, Drain, Pay, Wait
from spotrelay.core.placement import Market, Pool, Rung
from spotrelay.core.run import FOR_LIMIT, FOR_MONEY, Attempt, Intent, Run, RunStatus
from spotrelay.core.scoring import Journey, journey_of
from spotrelay.core.site import Site
from spotrelay.core.spec import AtCeiling, Limits

AHEAD = timedelta(minutes=20)  # before its paid time ends a machine's next piece is set aside, up to so long
LEAVE = timedelta(minutes=5)  # before the money ends an attempt is asked to save; it needs less, and pays for it
LOOK_AGAIN = timedelta(minutes=10)  # after the account had no money left, unless the books call before
WAITS = LOOK_AGAIN * 2  # so long the books call whoever was refused, unless it asks again
NO_MONEY = "the account's budget of the day is used up"


def price_of(pool: Pool, limits: Limits, prices: Mapping[Pool, float] | None) -> float | None:
    """Dollars an hour of a machine of this pool, as far as anybody told."""
    if Market(pool.market).is_reserved:
        return 0.0  # it is paid for whether or not it is used
    told = limits.on_demand_price(pool)
    return told if told is not None else (prices or {}).get(pool)


def dearest(pools: Iterable[Pool], limits: Limits, prices: Mapping[Pool, float] | None) -> float | None:
    """Dollars an hour of the dearest of these pools; None where one of them is not known."""
    known = [price_of(pool, limits, prices) for pool in pools]
    return None if None in known else max((price for price in known if price is not None), default=None)


def transfer_of(run: Run, rung: Rung, site: Site) -> float:
    """Dollars for fetching the newest checkpoint into a launch's region, by each of its machines."""
    return way_of_checkpoint(run, site).dollars(rung.pools[0].region) * run.spec.nodes


def way_of_checkpoint(run: Run, site: Site) -> Journey:
    """How far the checkpoint that would be resumed from has to go, from home or from a replica that has all of it."""
    return journey_of(run, site.home, site.transfer, regions_with(run, site))


def hold_for_launch(run: Run, intent: Intent, budget: Budget, now: datetime) -> Hold | None:
    """What has to be set aside before this launch is sent; None when nobody knows what it costs."""
    if intent.rate is None:
        return None
    until = paid_until(now, budget.block)
    start = min(intent.reserved_at, now)
    day = now.date()
    hourly = intent.rate * (intent.nodes + len(intent.keeps))  # the survivors of a gang go over to the new attempt
    amount = cost(hourly, start, until, day) + round(intent.transfer * MICRO)
    return Hold(run.run_id, intent.generation, day, amount, until, rate=int(hourly * MICRO))


def hold_for_machine(run: Run, attempt: Attempt, budget: Budget, now: datetime) -> Hold:
    """What has to be set aside for the next piece of a machine's time."""
    start = max(attempt.paid_until or now, now)
    until = paid_until(start, budget.block)
    day = start.date()
    hourly = rate(run, attempt) * len(attempt.machines)
    amount = cost(hourly, attempt.reserved_at or start, until, day) + _fetched(attempt, day)
    return Hold(run.run_id, attempt.generation, day, amount, until, True, int(hourly * MICRO))


def not_held(run: Run, attempt: Attempt, hold: Hold) -> int:
    """Millionths of a dollar of a machine's hold that are for its next piece of time, not set aside yet."""
    hourly = rate(run, attempt) * len(attempt.machines)
    return cost(hourly, attempt.paid_until or attempt.reserved_at or hold.until, hold.until, hold.day)


def closings(before: Run, after: Run) -> Iterator[tuple[int, date, int]]:
    """Generation, day and amount of every hold that a saved change has closed: its machine is gone, or never came."""
    for attempt in after.attempts:
        old = before.attempt(attempt.generation)
        if attempt.paid_until is None or not _closed(attempt, after) or (old is not None and _closed(old, before)):
            continue
        paid = attempt.paid_until - timedelta(microseconds=1)
        end = attempt.machine_gone_at or paid
        day, last = end.date(), max(paid, end).date()
        while day <= last:
            yield attempt.generation, day, _used(after, attempt, day)
            day += timedelta(days=1)


def confirmations(before: Run, after: Run) -> Iterator[Hold]:
    """Holds whose machine a saved change has brought."""
    for attempt in after.attempts:
        old = before.attempt(attempt.generation)
        if attempt.paid_until is None or attempt.instance_id is None or (old is not None and old.instance_id):
            continue
        day = (attempt.paid_until - timedelta(microseconds=1)).date()
        start = attempt.reserved_at or attempt.paid_until
        hourly = rate(after, attempt) * len(attempt.machines)
        amount = cost(hourly, start, attempt.paid_until, day) + _fetched(attempt, day)
        yield Hold(after.run_id, attempt.generation, day, amount, attempt.paid_until, True, int(hourly * MICRO))


def pay(run: Run, now: datetime, site: Site) -> Decision | None:
    """Whether the next piece of a machine's time has to be set aside now."""
    if site.budget is None or run.outcome is not None:
        return None
    due = next((a for a in run.live if not a.over and now >= pay_at(run, a, site.budget, now)), None)
    if due is None or (run.broke_until is not None and now < run.broke_until):
        return None
    return Pay(due.generation, "its machine's time is set aside piece by piece, and the next piece is due")


def pay_at(run: Run, attempt: Attempt, budget: Budget, now: datetime) -> datetime:
    """When the next piece is to be set aside: at another moment for each run, or midnight would be a stampede."""
    if attempt.paid_until is None:
        return now
    ahead = min(AHEAD, budget.block / 2)
    return attempt.paid_until - ahead * (0.5 + spread(run.run_id) / 2)


def out_of_money(run: Run, current: Attempt, now: datetime, site: Site) -> Drain | None:
    """Whether the attempt that trains has to save now, since nothing pays for it soon."""
    ends = money_ends(run, now)
    if ends is not None and now >= _leave_at(run, ends, now, site):
        limit = run.spec.limits.max_dollars
        return Drain(current.generation, f"limits.max_dollars, {limit:g}, is nearly used up", FOR_LIMIT)
    paid = current.paid_until
    if site.budget is None or run.broke_until is None or paid is None or now < paid - LEAVE * site.timings.scale:
        return None
    return Drain(current.generation, f"{NO_MONEY}, and its machine is paid for until {paid:%H:%M} UTC", FOR_MONEY)


def money_ends(run: Run, now: datetime) -> datetime | None:
    """When the machines that run now will have used up the run's dollars."""
    hourly = _hourly(run)
    if run.spec.limits.max_dollars is None or hourly <= 0:
        return None
    return now + timedelta(hours=max(run.spec.limits.max_dollars - spent(run, now), 0.0) / hourly)


def drained_for_limit(run: Run) -> bool:
    """Whether the run has left its last machine because its dollars were nearly used up."""
    last = run.current
    return last is not None and last.noticed_by == FOR_LIMIT and last.generation > run.opened_after


def spent(run: Run, now: datetime) -> float:
    """Dollars that the run's machines have cost so far, at the prices recorded at their launch."""
    return sum(_cost(run, a, now) for a in run.attempts if a.launched_at is not None)


def priced(run: Run) -> bool:
    """Whether the price of every machine that the run has had is known."""
    return all(a.price is not None for a in run.attempts if a.launched_at is not None)


def set_aside(run: Run, now: datetime) -> float:
    """Dollars in the account's books for time that the run's machines have not used yet."""
    ahead = ((a, a.paid_until) for a in run.live)
    return sum(
        _hourly_of(run, a) * max((until - now).total_seconds(), 0.0) / 3600 for a, until in ahead if until is not None
    )


def _hourly(run: Run) -> float:
    """Dollars an hour of everything that the run has at work."""
    return sum(_hourly_of(run, attempt) for attempt in run.live)


def _hourly_of(run: Run, attempt: Attempt) -> float:
    return rate(run, attempt) * sum(machine.live for machine in attempt.machines)


def _cost(run: Run, attempt: Attempt, now: datetime) -> float:
    used = (((m.machine_gone_at or now) - (m.launched_at or now)).total_seconds() for m in attempt.machines)
    return rate(run, attempt) * sum(max(seconds, 0.0) for seconds in used) / 3600 + attempt.transfer


def _leave_at(run: Run, ends: datetime, now: datetime, site: Site) -> datetime:
    """When a run saves before its dollars are used up: a tenth of what they suffice for, but no more than minutes."""
    hourly = _hourly(run)
    whole = timedelta(hours=(run.spec.limits.max_dollars or 0.0) / hourly) if hourly > 0 else timedelta(0)
    return ends - min(LEAVE * site.timings.scale, whole / 10)


def no_money(run: Run, now: datetime) -> Decision | None:
    """What follows before a launch from the account's budget having been refused to this run lately."""
    if run.broke_until is None or now >= run.broke_until:
        return None
    if run.spec.limits.at_ceiling is AtCeiling.STOP and not run.live:
        return Conclude(RunStatus.FAILED, f"{NO_MONEY}, and limits.at_ceiling says to stop")
    return Wait(run.broke_until, NO_MONEY)


def is_broke(run: Run, now: datetime) -> bool:
    """Whether the run waits because the account had no money for it."""
    waits = run.broke_until is not None and now < run.broke_until
    return waits and run.outcome is None and not run.paused


def asked_again_at(run: Run, now: datetime, scale: float = 1.0) -> datetime:
    """When a run that was refused money asks again: soon, or with the next day, not all of them together."""
    away = spread(f"{run.run_id}.{run.version}")
    soon = now + LOOK_AGAIN * scale * (0.5 + away)
    next_day = midnight_after(now)
    return soon if soon < next_day else next_day + LOOK_AGAIN * scale * away


def moments(run: Run, now: datetime, site: Site) -> Iterator[datetime]:
    """Every time at which one of these rules may give another answer."""
    if run.broke_until is not None:
        yield run.broke_until
    ends = money_ends(run, now)
    if ends is not None:
        yield ends
        yield _leave_at(run, ends, now, site)
    if site.budget is not None and run.outcome is None:
        yield from (pay_at(run, a, site.budget, now) for a in run.live if not a.over and a.paid_until)


def rate(run: Run, attempt: Attempt) -> float:
    """Dollars an hour of one machine. A price that nobody could learn is the whole ceiling: never nothing."""
    return attempt.price if attempt.price is not None else run.spec.limits.max_dollars or 0.0


def dollars(amount: int) -> str:
    """Millionths of a dollar, for a person."""
    return f"${amount / MICRO:,.2f}"


def _used(run: Run, attempt: Attempt, day: date) -> int:
    """Millionths of a dollar that the machines of an attempt that is over came to within a day."""
    times = ((m.launched_at, m.machine_gone_at) for m in attempt.machines)
    spans = ((start, max(end, start + SHORTEST)) for start, end in times if start is not None and end is not None)
    return sum(cost(rate(run, attempt), start, end, day) for start, end in spans) + _fetched(attempt, day)


def _fetched(attempt: Attempt, day: date) -> int:
    """Millionths of a dollar for the checkpoint's way into another region, on the day of the launch."""
    there = attempt.instance_id is not None and attempt.launched_at is not None and attempt.launched_at.date() == day
    return round(attempt.transfer * MICRO) if there else 0


def _closed(attempt: Attempt, run: Run) -> bool:
    """Whether nothing of this attempt costs money any more, or ever will."""
    if attempt.instance_id is not None:
        return attempt.machine_gone_at is not None
    open_launch = run.intent is not None and run.intent.generation == attempt.generation
    return attempt.over and not open_launch
