"""The demo's ground: the cloud, the run on it, and the one way to wait - look until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from spotrelay.console.demo.failure import DemoFailed
from spotrelay.console.demo.processes import living_in
from spotrelay.console.demo.reference import Reference
from spotrelay.console.demo.view import View
from spotrelay.console.wiring import Services
from spotrelay.core.checkpoint import Checkpoint
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.localcloud.client import LocalCloud

T = TypeVar("T")

LOOK_S = 0.5  # between looks
PATIENCE_S = 150.0  # for one thing to come about


class Stage:
    """Everything that a scene may use."""

    def __init__(
        self, cloud: LocalCloud, services: Services, bucket: str, reference: Reference, view: View, run_id: str
    ) -> None:
        self.cloud = cloud
        self.bucket = bucket
        self.services = services
        self.view = view
        self.run_id = run_id
        self.reference = reference
        self._shown = 0
        self._version = 0
        self._reference_step = 0

    def look(self) -> Run:
        """The run as it is now; whatever is new is shown."""
        run = self.services.runs.load(self.run_id)
        if run.version != self._version:  # a line is only ever written together with the row
            self._show_news()
            self._version = run.version
        if self.reference.running:
            self._reference_step = self.reference.step()
        self.view.progress(run, self._reference_step)
        return run

    def _show_news(self) -> None:
        lines = self.services.runs.timeline(self.run_id)
        for entry in lines[self._shown :]:
            self.view.entry(entry)
        self._shown = len(lines)

    def until(self, found: Callable[[Run], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
        """Look until `found` gives something, and give that.

        Raises:
            DemoFailed: the run ended before, or the patience did; says what was seen last.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                run = self.look()
            except (Contention, Unavailable):  # a busy moment of the cloud; the deadline still counts
                run = None
            answer = found(run) if run is not None else None
            if answer:
                return answer
            if run is not None and run.status.final:
                raise DemoFailed(f"the run {run.status.value} ({run.outcome_why}) while the demo waited for {what}")
            if time.monotonic() > deadline:
                seen = f"{run.status.value}, {self._shown} lines in its timeline" if run else "no answer"
                raise DemoFailed(f"not within {patience_s:.0f} s: {what}. The run was seen last: {seen}")
            time.sleep(LOOK_S)

    def progress(self, after: int) -> tuple[Attempt, Checkpoint]:
        """Wait until an attempt later than generation `after` trains and has a checkpoint of its own, verified."""

        def found(run: Run) -> tuple[Attempt, Checkpoint] | None:
            current = run.current
            if current is None or current.generation <= after or current.state is not AttemptState.RUNNING:
                return None
            own = [c for c in run.checkpoints if c.id.generation == current.generation and c.verified]
            return (current, own[0]) if own and current.first_step_at else None

        return self.until(found, f"a verified checkpoint of an attempt after {after}")

    def trains(self, after: int) -> Attempt:
        """Wait until an attempt later than generation `after` has finished a new step."""

        def found(run: Run) -> Attempt | None:
            current = run.current
            return current if current and current.generation > after and current.first_step_at else None

        return self.until(found, f"the first new step of an attempt after {after}")

    def over(self, generation: int) -> Attempt:
        """Wait until this attempt has ended."""

        def found(run: Run) -> Attempt | None:
            attempt = run.attempt(generation)
            return attempt if attempt and attempt.over else None

        return self.until(found, f"the end of attempt {generation}")

    def fired(self, trigger: int, what: str) -> dict[str, Any]:
        """Wait until a trigger has fired; the request that it fired on."""

        def found(run: Run) -> dict[str, Any] | None:
            state = self.cloud.trigger(trigger)
            return dict(state["fired_on"]) if state["fired"] else None

        return self.until(found, what)

    def instance(self, instance_id: str) -> dict[str, Any]:
        """What EC2 itself says about a machine."""
        return next(i for i in self.cloud.instances() if i["InstanceId"] == instance_id)

    def processes(self, instance_id: str) -> dict[int, str]:
        """A machine's living processes, from the kernel's process table."""
        return living_in(self.cloud.home / "instances" / instance_id)
