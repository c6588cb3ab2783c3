"""Whether a run is in time, and what that asks of the next machine. Pure.

Three rules, after "Can't Be Late" (NSDI '24) and what followed it. *Safety net*: at the last moment at which on-demand
capacity still makes it, with the cost of changing to it, the run goes there and stays. *Uniform progress*: a run that
is behind the straight line from its start to its deadline takes on-demand capacity where Spot has none; one that is
ahead waits for Spot. *Hysteresis*: on-demand is left only when the run is ahead of the line by two changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

NOTHING = timedelta(0)
MARGIN = 0.03  # of the work that is left, for a pace that was measured too fast
LOOKS = timedelta(minutes=2)  # nobody looks at a run more often than once a minute


class Urgency(Enum):
    """What the deadline asks for."""

    MUST = "must"  # on-demand, now, and until the end
    BEHIND = "behind"  # on-demand where Spot has nothing
    IN_TIME = "in time"  # Spot, and waiting for it
    AHEAD = "ahead"  # Spot even if on-demand has to be left for it


@dataclass(frozen=True)
class Work:
    """How far a run has come and how fast it is. Times are those of training alone."""

    done: timedelta  # that a loss at this moment would leave
    left: timedelta  # from there to the end
    change: timedelta  # from a launch to the first new step, as measured

    @property
    def whole(self) -> timedelta:
        return self.done + self.left


@dataclass(frozen=True)
class Judgement:
    """How urgent it is, and why."""

    urgency: Urgency
    why: str
    until: datetime | None = None  # when it becomes more urgent if nothing is done meanwhile
    last: datetime | None = None  # the last moment for on-demand; None once it has come


def judge(work: Work, start: datetime, deadline: datetime, now: datetime, on_demand_now: bool) -> Judgement:
    """What the deadline asks for at this moment.

    Args:
        start: when the run was submitted.
        on_demand_now: whether the run trains on on-demand capacity: then it is left only when well ahead.
    """
    last = last_moment(work, deadline, on_demand_now)
    if now >= last:
        late = "cannot be met any more, even" if now + work.left > deadline else "is only met"
        left = f"{_hours(work.left)} of training are left"
        return Judgement(Urgency.MUST, f"{left}, and the deadline in {_hours(deadline - now)} {late} on on-demand")
    behind = line(work, start, deadline, now) - work.done
    lead = 2 * work.change if on_demand_now else NOTHING
    if behind > -lead:
        text = f"{_hours(behind)} behind" if behind > NOTHING else f"only {_hours(-behind)} ahead of"
        return Judgement(Urgency.BEHIND, f"{text} even progress towards the deadline", last, last)
    ahead = f"{_hours(-behind)} ahead of even progress towards the deadline"
    if on_demand_now:
        return Judgement(Urgency.AHEAD, ahead, last, last)
    return Judgement(Urgency.IN_TIME, ahead, min(last, _meets_line(work, start, deadline)), last)


def last_moment(work: Work, deadline: datetime, on_demand_now: bool) -> datetime:
    """The last moment at which on-demand capacity from then on still makes it; earlier by what may be in the way."""
    change = NOTHING if on_demand_now else work.change + LOOKS
    return deadline - work.left * (1 + MARGIN) - change


def line(work: Work, start: datetime, deadline: datetime, now: datetime) -> timedelta:
    """The training that even progress would have done by now, with a change's time kept in hand."""
    span = deadline - start - work.change - LOOKS
    if span <= NOTHING:
        return work.whole
    return min(work.whole * ((now - start) / span), work.whole)


def _meets_line(work: Work, start: datetime, deadline: datetime) -> datetime:
    """When the line comes up to what is done, if nothing more is done."""
    span = deadline - start - work.change - LOOKS
    return start + span * (work.done / work.whole) if work.whole > NOTHING else deadline


def _hours(span: timedelta) -> str:
    minutes = round(max(span, NOTHING).total_seconds() / 60)
    return f"{minutes / 60:.1f} h" if minutes >= 120 else f"{minutes} min"
