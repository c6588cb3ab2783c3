"""Where every event ends: load, absorb, record, decide, claim, act, record, until there is nothing to do.

Each save is conditional on the version that was read. Who loses reads again and decides again, at
once, with the facts that it has learnt meanwhile. Whoever dies leaves the run due, and the sweep
comes back to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from handlers.act import CHANGE_WHAT_IS_READ_BESIDE, TOUCH_THE_WORLD, act, missing_price
from handlers.alarming import tell_of
from handlers.control import ControlPlane
from handlers.judging import condemned
from handlers.learning import Learning
from handlers.paying import Paying, money_is_back, refused_again
from handlers.settings import DECISION, EVENT_TO_LAUNCH, LAUNCHES_STOPPED, LOST_RACES, POSTPONED
from spotrelay.core.claim import claim
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Decision, Drain, Reserve, Rest, Send, Wait
from spotrelay.core.errors import Contention, LostRace, OutcomeUnknown, SpotrelayError, Unavailable
from spotrelay.core.facts import Fact, LaunchPostponed, Verified
from spotrelay.core.hosts import open_pools
from spotrelay.core.markets import may_return
from spotrelay.core.placement import Pool
from spotrelay.core.record import absorb, record
from spotrelay.core.run import FOR_SPOT, Run
from spotrelay.core.site import Site
from spotrelay.core.spec import asks_own, pools_of

MOST_STEPS = 60  # decisions in one response; a run never needs half of it
MOST_RACES = 40  # lost in one response
MOST_THROTTLES = 5
PAUSE_S = 0.05  # before the second try; doubles
STATUS_CHANGED = "Run Status Changed"


def respond(plane: ControlPlane, run_id: str, facts: Iterable[Fact] = (), started: float | None = None) -> None:
    """Record these facts about a run, and do everything that follows from all that is known of it.

    Args:
        started: `time.perf_counter()` when the event came in; None for one that nobody waits for.

    Raises:
        UnknownRun: there is no such run.
        Unavailable, Contention: not finished; the facts may not be recorded: the event has to come back.
    """
    response = Response(plane, run_id, list(facts), started)
    races = throttles = 0
    while True:
        try:
            response.to_the_end()
            return
        except LostRace:
            plane.telemetry.count(LOST_RACES)
            races += 1
            if races == MOST_RACES:
                raise
        except Contention:
            throttles += 1
            if throttles == MOST_THROTTLES:
                raise
            plane.pause(PAUSE_S * 2**throttles * random.uniform(0.5, 1.0))


class Response:
    """One handler at work on one run."""

    def __init__(self, plane: ControlPlane, run_id: str, facts: list[Fact], started: float | None) -> None:
        self._plane = plane
        self._run_id = run_id
        self._told = facts  # what the event brought, not yet looked at
        self._facts: list[Fact] = []  # grows with what the acts bring, so that a lost race loses none
        self._started = started
        self._allowed: bool | None = None  # what the kill switch said, once it was asked
        self._own: tuple[Pool, ...] | None = None  # hosts of one's own, read if the run asks for them
        self._prices: dict[Pool, float] = {}  # asked for when the run or the account has a ceiling
        self._moves: list[dict[str, Any]] = []  # changes of status, saved and not yet published
        self._turn: datetime | None = None  # in the line of launches, given in this response
        self._learning = Learning(plane, run_id)
        self._paying = Paying(plane, run_id)

    def to_the_end(self) -> None:
        """Decide and act until the run waits or rests."""
        try:
            self._go_on()
        finally:
            self._publish()
            self._paying.pass_on()
            self._learning.pass_on()

    def _go_on(self) -> None:
        self._load()
        self._condemn()
        for fact in self._facts:
            self._record(fact)
        if self._priced:
            self._price()
        self._ask_books()
        for _ in range(MOST_STEPS):
            decision = self._decide()
            self._plane.telemetry.count(DECISION + type(decision).__name__)
            if isinstance(decision, (Wait, Rest)):
                self._retire(decision)
                return
            if isinstance(decision, Reserve) and (refusal := refused_again(decision, self._run, self._plane)):
                self._record(refusal)
                continue
            self._claim(decision)
            if isinstance(decision, TOUCH_THE_WORLD):
                self._save(decision.why)
                if not self._act(decision):
                    return
        raise SpotrelayError(f"run {self._run_id} does not come to rest: {MOST_STEPS} decisions in a row. Report it")

    # reading and deciding

    def _load(self) -> None:
        self._saved = self._plane.store.load(self._run_id)
        self._run = absorb(self._saved, self._plane.clock.now(), self._plane.site)

    def _condemn(self) -> None:
        """Write verdicts that an event brought where verdicts are kept; what is known already is dropped."""
        while self._told:
            fact = self._told[0]
            if not isinstance(fact, Verified):
                self._facts.append(fact)
            elif found := condemned(fact, self._saved, self._plane):
                self._facts += found
                self._load()
            self._told.pop(0)  # only now: a throttle above brings us here again

    def _record(self, fact: Fact) -> None:
        self._run = record(self._run, fact, self._plane.clock.now(), self._plane.site)

    def _ask_books(self) -> None:
        """A run that waits for the account's money goes on when it is its turn to be paid."""
        back = money_is_back(self._run, self._plane)
        if back is not None:
            self._record(back)

    def _decide(self) -> Decision:
        """What follows; a launch, or leaving a machine for a cheaper one, only as the switch and prices say."""
        now = self._plane.clock.now()
        run = self._run if self._plane.collects else _collected_soon(self._run, now + self._plane.site.timings.settle)
        priced = self._priced
        site = replace(self._plane.site, own=self._hosts())
        supposed = replace(site, prices=dict.fromkeys(self._pools(), 0.0)) if priced else site
        decision = decide(run, now, supposed)
        if not isinstance(decision, (Reserve, Send)) and not (isinstance(decision, Drain) and decision.by == FOR_SPOT):
            return decision
        return decide(run, now, self._real_site(priced))

    @property
    def _priced(self) -> bool:
        """Whether prices have to be known: something is paid from a bounded sum, or there may be something cheaper."""
        bounded = self._run.spec.limits.max_dollars is not None or self._plane.site.budget is not None
        return bounded or may_return(self._run)

    def _real_site(self, priced: bool) -> Site:
        if self._allowed is None:
            self._allowed = self._ask_switch()
        if priced and not self._prices:
            self._prices = self._ask_prices()
        return replace(
            self._plane.site,
            own=self._hosts(),
            launches_allowed=self._allowed,
            prices=self._prices if priced else None,
            experience=self._learning.recall(),
        )

    def _ask_switch(self) -> bool:
        try:
            allowed = self._plane.switch.launches_allowed()
        except SpotrelayError as error:  # unknown is no leave
            self._plane.telemetry.error("the launch switch cannot be read", run_id=self._run_id, cause=str(error))
            allowed = False
        if not allowed:
            self._plane.telemetry.count(LAUNCHES_STOPPED)
        return allowed

    def _pools(self) -> tuple[Pool, ...]:
        return pools_of(self._run.spec, self._plane.site.zones, self._hosts())

    def _hosts(self) -> tuple[Pool, ...]:
        """Pools of the hosts that take runs; none when they cannot be read, for EC2 is there too."""
        if self._own is None and self._plane.hosts is not None and asks_own(self._run.spec):
            try:
                self._own = open_pools(self._plane.hosts.hosts())
            except SpotrelayError as error:
                self._plane.telemetry.warning("hosts cannot be read", run_id=self._run_id, cause=str(error))
                self._own = ()
        return self._own or ()

    def _ask_prices(self) -> dict[Pool, float]:
        try:
            return self._plane.machines.prices(self._pools())
        except SpotrelayError as error:
            self._plane.telemetry.warning("prices not known", run_id=self._run_id, cause=str(error))
            return {}

    # claiming and acting

    def _claim(self, decision: Decision) -> None:
        request = None
        if isinstance(decision, Reserve):
            self._learning.look_out(self._pools(), self._run.spec.nodes)
            request = self._plane.machines.prepare(self._run_id, decision.generation, decision.launch, decision.rung)
        self._run = claim(self._run, decision, self._plane.clock.now(), self._plane.site, request)

    def _act(self, decision: Decision) -> bool:
        """Act and record; False when a service does not answer. All facts are saved by then, and
        the claim left the run due, so that the sweep tries again and the event need not come back.
        """
        self._tell(decision)
        try:
            facts = act(decision, self._run, self._plane, self._prices)
        except Unavailable as error:
            self._plane.telemetry.count(POSTPONED)
            self._plane.telemetry.error("act postponed", run_id=self._run_id, why=decision.why, cause=str(error))
            return False
        self._facts += facts
        for fact in facts:
            self._record(fact)
            if isinstance(fact, LaunchPostponed) and fact.in_turn:
                self._turn = fact.until
        self._save(decision.why)
        if isinstance(decision, CHANGE_WHAT_IS_READ_BESIDE):
            self._load()
        if isinstance(decision, Send):
            self._price()
        return True

    def _price(self) -> None:
        fact = missing_price(self._run, self._plane)
        if fact is not None:
            self._facts.append(fact)
            self._record(fact)

    def _tell(self, decision: Decision) -> None:
        fields = {"run_id": self._run_id, "decision": type(decision).__name__, "why": decision.why}
        if isinstance(decision, Send) and self._started is not None:
            taken = 1000 * (time.perf_counter() - self._started)
            self._plane.telemetry.milliseconds(EVENT_TO_LAUNCH, taken)
            fields["event_to_launch_ms"] = f"{taken:.1f}"
        self._plane.telemetry.info("acting", **fields)

    def _retire(self, decision: Wait | Rest) -> None:
        """Write what is left and when to look again; nothing at all if that is known already."""
        tell_of(self._run, self._plane)
        self._wake_in_turn()
        saved, run = self._saved, self._run
        if isinstance(decision, Wait) and not run.news and replace(run, due_at=saved.due_at) == saved:
            now = self._plane.clock.now()
            if saved.due_at is not None and now < saved.due_at <= decision.until:
                return
        self._claim(decision)
        self._save(decision.why)
        if isinstance(decision, Wait):
            self._wake_at(decision.until)

    def _wake_at(self, until: datetime) -> None:
        """Have the run looked at then, when the next sweep would be late. The sweep comes all the same."""
        away = until - self._plane.clock.now()
        if until != self._turn and away <= self._plane.site.timings.watch * 0.75:
            self._send_back(away)

    def _wake_in_turn(self) -> None:
        """Have the run looked at when its turn in the line of launches comes: sweeps would bunch them together."""
        if self._turn is not None:
            self._send_back(self._turn - self._plane.clock.now())

    def _send_back(self, away: timedelta) -> None:
        queue = self._plane.runs_queue
        if queue is None:
            return
        try:
            queue.send([self._run_id], max(away, timedelta(0)))
        except SpotrelayError as error:
            self._plane.telemetry.warning("no early look", run_id=self._run_id, cause=str(error))

    # writing

    def _save(self, why: str) -> None:
        if self._run == self._saved and not self._run.news:
            return
        before, after = self._saved, self._run
        try:
            self._saved = self._plane.store.save(before, after)
        except OutcomeUnknown:
            self._saved = self._read_back(before, after)
        self._run = self._saved
        self._learning.note(before, self._saved)
        self._paying.note(before, self._saved)
        if before.status is not after.status:
            self._moves.append(_move(before, after, why))

    def _read_back(self, before: Run, after: Run) -> Run:
        """Our own write, if it is there; else as if the race were lost, for somebody may have won it."""
        found = self._plane.store.load(self._run_id)
        if found.version == before.version + 1 and found == replace(after, version=found.version):
            return found
        raise LostRace(f"run {self._run_id}: the reply to a write was lost, and the row is another's")

    def _publish(self) -> None:
        """Tell users what was saved. A hint: what it says is in the row, and a launch goes first."""
        moves, self._moves = self._moves, []
        for detail in moves:
            try:
                self._plane.publisher.publish(STATUS_CHANGED, detail)
            except SpotrelayError as error:
                self._plane.telemetry.warning("status change not published", cause=str(error), **detail)


def _collected_soon(run: Run, at: datetime) -> Run:
    """The run as if its bucket were not to be tidied before this: another function comes round by then."""
    due_at = run.upkeep.due_at
    return run if due_at is None or due_at >= at else replace(run, upkeep=replace(run.upkeep, due_at=at))


def _move(before: Run, after: Run, why: str) -> dict[str, Any]:
    return {
        "run_id": after.run_id,
        "from": before.status.value,
        "to": after.status.value,
        "reason": after.news[-1].text if after.news else why,
        "generation": after.current.generation if after.current else 0,
        "schema": 1,
    }
