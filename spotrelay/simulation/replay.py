"""Spotrelay itself on recorded capacity: `record`, `decide` and `claim` as in production, acted on in memory.

The clock jumps from event to event. Looks that find nothing new are left out: a healthy machine is
not watched each minute, because nothing in a trace falls silent. A machine is lost without any
lead, for a trace tells of none; in production the notice comes two minutes earlier. Where a pool has fewer
machines than a gang needs, all of the gang are lost at once: no survivors wait for others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.claim import claim
from spotrelay.core.clockwork import Timings
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Collect, Drain, Fence, Observe, Resolve, Rest, Send, Terminate, Verify, Wait
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.experience import Experience, answered, ended
from spotrelay.core.facts import Collected, DrainAsked, Fact, LaunchAbandoned, LaunchAnswered, TerminateAsked
from spotrelay.core.lease import Lease, fence, take
from spotrelay.core.ledger import ledger_of
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.notice import InstanceState, InterruptionNotice, NoticeSource, StateChange
from spotrelay.core.placement import FailureScope, Market, Pool, Refusal
from spotrelay.core.ports import LaunchAnswer
from spotrelay.core.record import absorb, record
from spotrelay.core.run import Run
from spotrelay.core.site import Site
from spotrelay.core.spec import pools_of
from spotrelay.core.spending import spent
from spotrelay.simulation.scenario import Outcome, Scenario
from spotrelay.simulation.traces import Seconds

FIRST_PROBE = datetime(2026, 1, 1, tzinfo=UTC)
NO_LOOKS = timedelta(days=3650)
LOOK = 600.0  # seconds between looks at a run that has an end
MOST_STEPS = 1000  # decisions at one moment; a run that needs more does not come to rest


@dataclass(frozen=True)
class Held:
    """The machine, or the gang, that a run has now."""

    instance_ids: tuple[str, ...]
    pool: Pool
    ready: Seconds  # when its first step is done
    lost: Seconds  # `inf` when the trace does not tell

    @property
    def instance_id(self) -> str:
        """The one machine, or the gang's first, which holds the lease."""
        return self.instance_ids[0]


def replay(scenario: Scenario, shared: bool = True) -> list[Outcome]:
    """What each run came to.

    Args:
        shared: whether the runs are of one account and learn from each other, in the order of
            time: nothing is known to a run before it has happened. False: each learns alone.
    """
    if shared:
        return Account(scenario).outcomes()
    alone = (replace(scenario, starts=(start,)) for start in scenario.starts)
    return [outcome for each in alone for outcome in Account(each).outcomes()]


class Account:
    """Every run of an account, and what they have learnt together."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._traces = {trace.pool: trace for trace in scenario.traces}
        zones = tuple(dict.fromkeys((t.pool.region, t.pool.zone) for t in scenario.traces))
        prices = {pool: self.price(pool) for pool in pools_of(scenario.spec, zones)}
        self.site = Site(zones, replace(Timings(), watch=NO_LOOKS), prices=prices, experience=Experience())
        self._runs = [Simulated(self, f"run-{i}", start) for i, start in enumerate(scenario.starts)]

    def outcomes(self) -> list[Outcome]:
        """Play everything in the order of time."""
        queue = [(run.start, index) for index, run in enumerate(self._runs)]
        heapify(queue)
        while queue:
            moment, index = heappop(queue)
            after = self._runs[index].advance(moment)
            if after is not None:
                heappush(queue, (after, index))
        return [run.outcome() for run in self._runs]

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    def price(self, pool: Pool) -> float:
        assumed = self._scenario.assumptions
        return assumed.on_demand if pool.market == Market.ON_DEMAND.value else assumed.spot

    def ask(self, pools: tuple[Pool, ...], instance_id: str, moment: Seconds) -> tuple[LaunchAnswer, Seconds]:
        """EC2's answer to a launch: the first pool that has capacity gives the machine, and until when."""
        refusals: list[Refusal] = []
        for pool in pools:
            until = self._capacity(pool, moment)
            if until is not None:
                others = tuple(f"{instance_id}.{node}" for node in range(1, self._scenario.spec.nodes))
                return LaunchAnswer(instance_id, pool, tuple(refusals), others), until
            code = "InsufficientInstanceCapacity"
            refusals.append(Refusal(pool, FailureScope.POOL, code, "the trace has none", at(moment)))
        return LaunchAnswer(None, None, tuple(refusals)), moment

    def _capacity(self, pool: Pool, moment: Seconds) -> Seconds | None:
        if pool.market == Market.ON_DEMAND.value:
            return math.inf
        trace = self._traces.get(pool)
        return trace.up_until(moment) if trace else None

    def learn_answer(self, answer: LaunchAnswer, moment: Seconds) -> None:
        known = self.site.experience or Experience()
        self._know(answered(known, answer.instance_id, answer.pool, answer.refusals, at(moment)))

    def learn_end(self, held: Held, taken: bool, moment: Seconds) -> None:
        self._know(ended(self.site.experience or Experience(), held.pool, held.instance_id, taken, at(moment)))

    def _know(self, experience: Experience) -> None:
        self.site = replace(self.site, experience=experience)


class Simulated:
    """One run with its machine: what the store, EC2 and the attempt are in production."""

    def __init__(self, account: Account, run_id: str, start: Seconds) -> None:
        self._account = account
        self._held: Held | None = None
        self._losses = 0
        self._done = 0.0  # training of the machines before this one
        self._finished: Seconds | None = None
        self.start = start
        self._end = start + account.scenario.length
        self._run = Run(run_id, account.scenario.spec, at(start), lease=Lease(run_id))

    def advance(self, moment: Seconds) -> Seconds | None:
        """Everything that happens to the run by this moment; the next one that matters, None at its end."""
        self._run = replace(self._run, news=())  # the timeline is nobody's here
        self._boot(moment)
        self._finish(moment)
        self._tell_progress(moment)
        self._lose(moment)
        if moment >= self._end or self._run.outcome is not None or self._finished is not None:
            self._stop(min(moment, self._end))
            return None
        until = self._settle(moment)
        lost = self._held.lost if self._held else math.inf
        watched = moment + LOOK if self._account.scenario.work is not None and self._held else math.inf
        return min(lost, until, self._end, watched, self._finishes)

    def outcome(self) -> Outcome:
        """What the run came to, by the control plane's own ledger."""
        run, end = self._run, at(self._end)
        ledger = ledger_of(run, end)
        machines = sum(a.launched_at is not None for a in run.attempts)
        productive = ledger.goodput * ledger.wall.total_seconds()
        why = run.outcome_why if run.outcome is not None else ""
        finished = None if self._finished is None else self._finished - self.start
        productive = productive if finished is None else self._done
        return Outcome(productive, machines, self._losses, spent(run, end), why, finished)

    # what happens to the machine

    def _boot(self, moment: Seconds) -> None:
        held, run = self._held, self._run
        current = run.current
        if held is None or current is None or current.beating_at is not None or held.ready > min(moment, held.lost):
            return
        lease = take(run.lease or Lease(run.run_id), current.generation, held.instance_id)
        beat = Heartbeat(run.run_id, current.generation, 1, Phase.TRAINING, first_step=True)
        beats = tuple(replace(beat, node=node) for node in range(len(held.instance_ids)))
        self._run = absorb(replace(run, lease=lease, heartbeats=beats), at(held.ready), self._account.site)

    @property
    def _finishes(self) -> Seconds:
        """When the machine that there is will have done what is left; `inf` without one, or without an end."""
        work = self._account.scenario.work
        return math.inf if work is None or self._held is None else self._held.ready + work - self._done

    def _finish(self, moment: Seconds) -> None:
        held, done = self._held, self._finishes
        if held is None or done > min(moment, held.lost):
            return
        self._done, self._finished = self._account.scenario.work or 0.0, done
        self._all_gone(held, at(done))
        self._account.learn_end(held, False, done)
        self._held = None

    def _trained(self, moment: Seconds) -> Seconds:
        """Training by this moment: nothing of it is lost with a machine, what is done again is in the restart."""
        held = self._held
        return self._done + (max(min(moment, held.lost) - held.ready, 0.0) if held else 0.0)

    def _tell_progress(self, moment: Seconds) -> None:
        """What the heartbeats and the checkpoints of a run with an end say: a step takes a second."""
        work, current = self._account.scenario.work, self._run.current
        if work is None or self._held is None or current is None or current.beating_at is None:
            return
        step, generation = int(self._trained(moment)), current.generation
        beat = Heartbeat(
            self._run.run_id, generation, 1, Phase.TRAINING, step, int(work), resumed_from=int(self._done),
            first_step=True,
        )  # fmt: skip
        commit = Commit(self._run.run_id, generation, 1, step, "", "", "", 0)
        point = Checkpoint(commit, Verdict(generation, 1, True, "", at(moment)))
        self._run = absorb(replace(self._run, heartbeats=(beat,), checkpoints=(point,)), at(moment), self._account.site)

    def _lose(self, moment: Seconds) -> None:
        held = self._held
        if held is None or held.lost > moment:
            return
        now, self._done = at(moment), self._trained(moment)
        for instance_id in held.instance_ids:
            self._learn(InterruptionNotice(instance_id, "terminate", now, NoticeSource.EVENTBRIDGE), now)
        self._all_gone(held, now)
        self._account.learn_end(held, True, moment)
        self._losses += 1
        self._held = None

    def _stop(self, moment: Seconds) -> None:
        if self._held is not None:
            self._account.learn_end(self._held, False, moment)
            self._held = None

    # deciding and acting

    def _settle(self, moment: Seconds) -> Seconds:
        """Decide and act until there is nothing to do; when to look again."""
        now = at(moment)
        for _ in range(MOST_STEPS):
            decision = decide(self._run, now, self._account.site)
            self._run = claim(self._run, decision, now, self._account.site)
            if isinstance(decision, Wait):
                return max(seconds(decision.until), moment + 1.0)
            if isinstance(decision, Rest) or self._run.outcome is not None:
                return moment
            for fact in self._act(decision, moment):
                self._learn(fact, now)
        raise SpotrelayError(
            f"{self._run.run_id} does not come to rest: {MOST_STEPS} decisions at one moment. Report it"
        )

    def _act(self, decision: object, moment: Seconds) -> Iterator[Fact]:
        match decision:
            case Fence(floor=floor) if self._run.lease is not None:
                self._run = replace(self._run, lease=fence(self._run.lease, floor))
            case Send(intent=intent):
                answer, until = self._account.ask(intent.pools, f"{self._run.run_id}.{intent.launch}", moment)
                self._account.learn_answer(answer, moment)
                if answer.instance_id is not None and answer.pool is not None:
                    ready = moment + self._account.scenario.assumptions.restart
                    self._held = Held(answer.instance_ids, answer.pool, ready, until)
                yield LaunchAnswered(intent.launch, answer, self._account.price(answer.pool) if answer.pool else None)
            case Terminate():
                self._stop(moment)
                for instance_id in decision.instance_ids:
                    yield TerminateAsked(instance_id)
                    yield StateChange(instance_id, InstanceState.TERMINATED)
            case Drain(generation=generation, by=by) if self._held is not None:
                held, self._done = self._held, self._trained(moment)
                self._stop(moment)
                yield DrainAsked(generation, by)
                for instance_id in held.instance_ids:
                    yield StateChange(instance_id, InstanceState.TERMINATED)
            case Verify(checkpoints=points):
                verdict = Verdict(points[0].commit.generation, 1, True, "", at(moment) + timedelta(microseconds=1))
                self._run = replace(self._run, checkpoints=(replace(points[0], verdict=verdict),))
            case Resolve(intent=intent):
                yield LaunchAbandoned(intent.launch)
            case Collect():  # a replay has no bucket: there is nothing to look through before its end
                yield Collected(replace(self._run.upkeep, due_at=at(self._end) + timedelta(days=1)))
            case Observe():
                raise SpotrelayError(f"{self._run.run_id}: nothing in a replay falls silent. Report it")

    def _all_gone(self, held: Held, now: datetime) -> None:
        for instance_id in held.instance_ids:
            self._learn(StateChange(instance_id, InstanceState.TERMINATED), now)

    def _learn(self, fact: Fact, now: datetime) -> None:
        self._run = record(self._run, fact, now, self._account.site)


def at(moment: Seconds) -> datetime:
    """The virtual clock's time."""
    return FIRST_PROBE + timedelta(seconds=moment)


def seconds(time: datetime) -> Seconds:
    """The moment of a time of the virtual clock."""
    return (time - FIRST_PROBE).total_seconds()
