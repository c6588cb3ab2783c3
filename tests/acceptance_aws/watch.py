"""The one way to wait: look at the runs, at EC2, at the money and at the clock until something is so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from spotrelay.console.output import entry_line
from spotrelay.console.wiring import Services
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.run import AttemptState, Run
from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.machines import Ledger, Machine
from tests.acceptance_aws.money import Prices, check_ceiling, spent

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """Time, and a way to let it pass."""

    now: Callable[[], datetime]
    sleep: Callable[[float], None]


@dataclass(frozen=True)
class Bounds:
    """Where everything ends."""

    dollars: float
    until: datetime
    look_s: float = 5.0


class Watch:
    """Looks, tells what is new, and stops everything at a bound."""

    def __init__(
        self,
        services: Services,
        ledger: Ledger,
        prices: Prices,
        bounds: Bounds,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self.services = services
        self.ledger = ledger
        self._prices = prices
        self._bounds = bounds
        self._clock = clock
        self._say = say
        self._told: dict[str, int] = {}

    @property
    def dollars(self) -> float:
        """Spent so far on what was seen."""
        return spent(self.ledger.seen, self._prices, self._clock.now())

    def look(self, *run_ids: str) -> list[Run]:
        """These runs as they are now; whatever is new of them is told.

        Raises:
            CeilingReached, AcceptanceFailed: a bound is reached.
        """
        try:
            self.ledger.look()
        except Unavailable as error:  # what was seen before goes on costing
            self._say(f"EC2 does not answer: {error}")
        check_ceiling(self.dollars, self._bounds.dollars)
        if self._clock.now() >= self._bounds.until:
            raise AcceptanceFailed("the time allowed for this test is over")
        return [self._look_at(run_id) for run_id in run_ids]

    def until(self, found: Callable[[list[Run]], T | None], what: str, patience: timedelta, *run_ids: str) -> T:
        """Look until `found` gives something, and give that.

        Raises:
            AcceptanceFailed: the patience or a bound came first.
        """
        deadline, seen = self._clock.now() + patience, "no answer"
        self._say(f"waiting for {what}")
        while True:
            try:
                runs = self.look(*run_ids)
                if answer := found(runs):
                    return answer
                seen = ", ".join(f"{run.run_id} is {run.status.value} {run.outcome_why}".strip() for run in runs)
            except (Contention, Unavailable) as error:
                seen = str(error)
            if self._clock.now() >= deadline:
                raise AcceptanceFailed(f"not within {patience}: {what}. Last seen: {seen}")
            self._clock.sleep(self._bounds.look_s)

    def machine_with_checkpoint(self, run_id: str) -> str:
        """Wait until an attempt trains and has a verified checkpoint of its own; its machine."""

        def found(runs: list[Run]) -> str | None:
            (run,) = runs
            if run.status.final:
                raise AcceptanceFailed(
                    f"run {run_id} {run.status.value} before its first checkpoint: {run.outcome_why}"
                )
            current = run.current
            if current is None or current.state is not AttemptState.RUNNING or not current.first_step_at:
                return None
            own = [c for c in run.checkpoints if c.verified and c.id.generation == current.generation]
            return current.instance_id if own else None

        return self.until(found, f"{run_id} to train, with a verified checkpoint", timedelta(minutes=30), run_id)

    def loss_of(self, run_id: str, instance_id: str) -> Run:
        """Wait until this machine is known to be lost."""

        def found(runs: list[Run]) -> Run | None:
            (run,) = runs
            attempt = run.attempt_on(instance_id)
            if attempt is not None and attempt.over:
                return run
            if run.status.final:
                raise AcceptanceFailed(f"{run_id} ended before it was interrupted: give it more --steps")
            return None

        return self.until(found, f"the end of {instance_id}", timedelta(minutes=20), run_id)

    def ends(self, *run_ids: str) -> list[Run]:
        """Wait until these runs have ended."""

        def found(runs: list[Run]) -> list[Run] | None:
            return runs if all(run.status.final for run in runs) else None

        return self.until(found, f"the end of {' and '.join(run_ids)}", timedelta(minutes=60), *run_ids)

    def empties(self, patience: timedelta) -> list[Machine]:
        """Wait until no machine runs; those that still do when the patience ends."""

        def found(_: list[Run]) -> bool:
            return all(machine.is_over for machine in self.ledger.seen)

        try:
            self.until(found, "every machine to end by itself", patience)
        except AcceptanceFailed as error:
            self._say(str(error))
        return [machine for machine in self.ledger.seen if not machine.is_over]

    def _look_at(self, run_id: str) -> Run:
        run = self.services.runs.load(run_id)
        lines = self.services.runs.timeline(run_id)
        for entry in lines[self._told.get(run_id, 0) :]:
            self._say(f"{run_id}: {entry_line(entry)}")
        self._told[run_id] = len(lines)
        return run
