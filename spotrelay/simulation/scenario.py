"""What is replayed: pools with their traces, and runs that start at random. And what comes out of one run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Spec
from spotrelay.simulation.traces import Seconds, Trace

HOUR: Seconds = 3600.0


@dataclass(frozen=True)
class Assumptions:
    """What the traces do not tell."""

    restart: Seconds = 195.0  # from a launch to the first new step; paid for and not productive
    on_demand: float = 1.0  # dollars an hour of an on-demand machine
    spot_share: float = 0.35  # of that, the price of a Spot machine

    @property
    def spot(self) -> float:
        return self.on_demand * self.spot_share


@dataclass(frozen=True)
class Scenario:
    """One calendar, the same for every policy."""

    spec: Spec
    traces: tuple[Trace, ...]
    starts: tuple[Seconds, ...]  # of each run, ascending
    length: Seconds  # of each run, at the most
    assumptions: Assumptions = Assumptions()
    work: Seconds | None = None  # of training, after which a run is done; None: it trains to its end


@dataclass(frozen=True)
class Outcome:
    """What one run came to under one policy."""

    productive: Seconds
    launches: int  # machines that it got; a gang counts once
    losses: int  # machines that were taken from it; the loss of one is that of its whole gang
    cost: float  # dollars
    failed: str = ""  # why it ended before its time; empty when it did not
    finished: Seconds | None = None  # from its start until its work was done


@dataclass(frozen=True)
class Figures:
    """The means over all runs of a policy."""

    productive: float  # share of the runs' time
    launches: float  # a run
    losses: float  # a run
    cost: float  # dollars a run
    cost_per_productive_hour: float | None  # over the runs that did not fail; None if nothing was produced
    failed: int  # runs that ended before their time
    finished: float | None = None  # share of the runs whose work was done; None where no work was stated
    in_time: float | None = None  # share of the runs that were done by their deadline; None where there is none
    hours: float | None = None  # until it was done, over the runs that finished


def scenario(
    spec: Spec,
    traces: tuple[Trace, ...],
    runs: int,
    hours: float,
    seed: int,
    assumptions: Assumptions | None = None,
    work: Seconds | None = None,
) -> Scenario:
    """A scenario whose runs start at random within the traces.

    Raises:
        InvalidInput: the traces are shorter than a run.
    """
    shortest = min(traces, key=lambda trace: trace.length)
    room = shortest.length - hours * HOUR
    if room < 0:
        have = f"{shortest.length / HOUR:.1f} hours of {shortest.pool.zone}"
        raise InvalidInput(f"a run of {hours:g} hours does not fit into the {have}: ask for fewer with --hours")
    dice = random.Random(seed)
    starts = sorted(dice.uniform(0.0, room) for _ in range(runs))
    return Scenario(spec, traces, tuple(starts), hours * HOUR, assumptions or Assumptions(), work)


def figures(outcomes: Iterable[Outcome], length: Seconds, deadline: Seconds | None = None) -> Figures:
    """The means of these outcomes."""
    every = tuple(outcomes)
    done = [o.finished for o in every if o.finished is not None]
    finished = [o for o in every if not o.failed]
    hours = sum(o.productive for o in finished) / HOUR
    return Figures(
        productive=sum(o.productive for o in every) / (length * len(every)),
        launches=sum(o.launches for o in every) / len(every),
        losses=sum(o.losses for o in every) / len(every),
        cost=sum(o.cost for o in every) / len(every),
        cost_per_productive_hour=sum(o.cost for o in finished) / hours if hours else None,
        failed=len(every) - len(finished),
        finished=len(done) / len(every) if done else None,
        in_time=None if deadline is None else sum(each <= deadline for each in done) / len(every),
        hours=sum(done) / len(done) / HOUR if done else None,
    )
