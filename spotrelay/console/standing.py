"""Where a run stands in money, time and machines, and what somebody may do next: part of `spotrelay status RUN`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from spotrelay.console.output import lasting
from spotrelay.core.deadline import line
from spotrelay.core.lifecycle import why_no_retry
from spotrelay.core.markets import work
from spotrelay.core.run import Run, RunStatus
from spotrelay.core.spending import NO_MONEY, priced, set_aside, spent

RESTING = (RunStatus.PAUSING, RunStatus.PAUSED)


def standing(run: Run, now: datetime) -> dict[str, Any]:
    """Money, deadline, machines and the next step as one object: the keys are stable."""
    known = priced(run)
    return {
        "money": {
            "spent": round(spent(run, now), 4) if known else None,
            "set_aside": round(set_aside(run, now), 4) if known else None,
            "ceiling": run.spec.limits.max_dollars,
        },
        "deadline": _deadline(run, now),
        "nodes": run.spec.nodes,
        "nodes_up": sum(machine.live for machine in run.current.machines) if run.current and run.current.live else 0,
        "next": next_step(run, now),
    }


def lines(about: dict[str, Any], now: datetime) -> Iterator[str]:
    """The same for a person; what says nothing is left out."""
    if about["nodes"] > 1:
        yield f"machines: {about['nodes_up']} of {about['nodes']}"
    money = _money_line(**about["money"])
    if money:
        yield f"money: {money}"
    if about["deadline"] is not None:
        yield f"deadline: {_deadline_line(now, **about['deadline'])}"
    if about["next"]:
        yield f"next: {about['next']}"


def next_step(run: Run, now: datetime) -> str | None:
    """What somebody may do, or what the run waits for; None where it just goes on, or is done."""
    if run.status in RESTING:
        meanwhile = "it saves and its machine goes, then it rests" if run.status is RunStatus.PAUSING else "it rests"
        return f"{meanwhile}; spotrelay resume {run.run_id} lets it go on"
    if run.status in (RunStatus.FAILED, RunStatus.CANCELLED):
        refused = why_no_retry(run, spent(run, now))
        return refused or f"mend the cause, then: spotrelay retry {run.run_id}"
    if run.outcome is not None or run.broke_until is None:
        return None
    wait = run.broke_until - now
    again = f"asked again in {lasting(wait)}" if wait > timedelta(0) else "asked again now"
    paid = run.current.paid_until if run.current is not None and run.live else None
    until = f"; its machine is paid for until {paid:%H:%M} UTC" if paid is not None else ""
    return f"{NO_MONEY}, {again}{until} (spotrelay budget shows who holds it)"


def _deadline(run: Run, now: datetime) -> dict[str, Any] | None:
    """When the run has to be done, and how it stands: ahead, behind, unknown, met or missed, by so many seconds."""
    at = run.spec.deadline_after(run.created_at)
    if at is None:
        return None
    end = run.ended_at or now
    if run.status is RunStatus.SUCCEEDED or end >= at:
        state = "met" if run.status is RunStatus.SUCCEEDED and end <= at else "missed"
        return {"at": at, "state": state, "by_s": round(abs((at - end).total_seconds()), 1)}
    found = work(run, now)
    if found is None or run.status.final:
        return {"at": at, "state": "unknown", "by_s": None}
    lead = found.done - line(found, run.created_at, at, now)
    state = "behind" if lead < timedelta(0) else "ahead"
    return {"at": at, "state": state, "by_s": round(abs(lead.total_seconds()), 1)}


def _money_line(spent: float | None, set_aside: float | None, ceiling: float | None) -> str:
    of = f"of ${ceiling:,.2f} (limits.max_dollars)" if ceiling is not None else ""
    if spent is None or set_aside is None:
        return f"nobody has told its price; {of}".removesuffix("; ") if of else ""
    if not spent and not set_aside and ceiling is None:
        return ""
    ahead = f", ${set_aside:,.2f} more set aside" if set_aside else ""
    return f"${spent:,.2f} spent{ahead}" + (f", {of}" if of else "")


def _deadline_line(now: datetime, at: datetime, state: str, by_s: float | None) -> str:
    when = f"{at:%Y-%m-%d %H:%M} UTC"
    if at > now:
        when += f", in {lasting(at - now)}"
    by = lasting(timedelta(seconds=by_s or 0))
    return {
        "met": f"{when}: met, {by} before",
        "missed": f"{when}: missed by {by}",
        "unknown": f"{when}: nobody knows yet how much is to be done",
        "ahead": f"{when}: {by} ahead of even progress",
        "behind": f"{when}: {by} behind even progress",
    }[state]
