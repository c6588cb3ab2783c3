"""When to save, the copy that training waits for, and the one save that may be under way."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import spotrelay
from spotrelay.core.cadence import Costs, Flying, LastSave, Progress, due, last_save
from spotrelay.core.checkpoint import Health, SaveReason
from spotrelay.core.errors import InvalidInput
from spotrelay.core.health import Judgement
from spotrelay.core.pace import Pace
from spotrelay.core.spec import Cadence
from trainer_shim.base import Memory
from trainer_shim.environment import Identity
from trainer_shim.framework import Framework
from trainer_shim.joint import Joint
from trainer_shim.saving import Flight
from trainer_shim.snapshot import Snapshot, Torn
from trainer_shim.taking import PLAIN, SnapshotTaker, Wishes
from trainer_shim.vitals import Vitals
from trainer_shim.voice import say
from trainer_shim.wiring import Ports

LOOK_SHARE = 0.01  # of a step: what a look at the gradients may cost
LOOK_LEAST_S = 0.002  # and what it may cost in any case

Data = Callable[[], dict[str, Any]]  # says where in the data the next batch is


class Checkpointer:
    """Takes snapshots of what the framework holds and sends them off, one at a time."""

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        framework: Framework,
        cadence: Cadence,
        costs: Costs,
        saves: int,
        vitals: Vitals,
        wishes: Wishes = PLAIN,
        joint: Joint | None = None,
    ) -> None:
        self.costs = costs
        self.flight: Flight | None = None
        self.code = ""  # digest of the pinned code, for the manifests
        self.new_steps = 0  # finished since the newest snapshot
        self._ports = ports
        self._identity = identity
        self._framework = framework
        self._cadence = cadence
        self._vitals = vitals
        self.memory = Memory(ports.store, identity.run_id)
        patience_s = identity.timings.watch.total_seconds()
        self._joint = joint  # None: this process saves by itself
        self._departed: Flight | None = None  # the newest save, once its sending has begun
        self._taker = SnapshotTaker(framework, ports.objects, ports.uploader, wishes, patience_s, joint)
        self._last_save = saves  # number of the newest save of this generation
        self._begun = 0  # saves begun by this process
        self._begun_at = self._since = time.monotonic()
        self._stepped_at: float | None = None  # monotonic; when a checkpoint could last be taken
        self._pace = Pace()
        self._look_s = 0.0  # what looking at the gradients took
        self._cannot = ""  # why no snapshot can be taken

    def trouble(self) -> str:
        """What keeps checkpoints from being committed at present; empty when nothing does."""
        return self._cannot or (self.flight.trouble if self.flight is not None else "")

    def survey(self, data: Data) -> None:
        """See that everything can be saved, and warm the staging buffer beside the first steps.

        Raises:
            InvalidInput: something attached cannot be held by a checkpoint; names it.
        """
        self._taker.prepare(self._state(0, data))

    def warm(self, data: Data) -> None:
        """Let the staging buffer grow to what the state has become, beside the next steps."""
        try:
            self.survey(data)
        except (InvalidInput, MemoryError, OSError) as error:
            self._cannot = f"no snapshot can be taken: {error}"

    def stepped(self, settled: bool) -> None:
        """Take note of the end of a step.

        Args:
            settled: whether a checkpoint could be taken now. Only the time between two such moments matters.
        """
        self.new_steps += 1
        if settled:
            now = time.monotonic()
            if self._stepped_at is not None:
                self._pace.see(now - self._stepped_at, self.flight is not None)
            self._stepped_at = now

    def settle(self) -> None:
        """Return once nothing of the state is being copied, so that it may be changed."""
        self._taker.settle()

    def close(self) -> None:
        """End what works beside the training."""
        self._taker.close()

    def due(self, ahead: int = 0) -> SaveReason | None:
        """Why a checkpoint should be begun now, or in so many steps, if one should."""
        began = self._begun_at if self._begun else self._since
        progress = Progress(time.monotonic() - began, self.new_steps + ahead, self._begun, began - self._since)
        return due(self._cadence, replace(self.costs, drag=self._pace.drag), progress, self._identity.time_scale)

    def last_save(self, left_s: float, at_boundary: bool = True) -> LastSave:
        """What to do with what is left of a notice; at once, from what is known.

        Args:
            at_boundary: False while a step is being made.
        """
        now = time.monotonic()
        flying = None
        if self.flight is not None:
            snapshot = self.flight.snapshot
            sent, age_s = self.flight.sent_bytes, now - snapshot.taken_at
            flying = Flying(age_s, self.flight.total_bytes - sent, sent / age_s if age_s > 0 else 0.0)
        since = now if at_boundary or self._stepped_at is None else self._stepped_at
        boundary_s = 0.0 if at_boundary else max(self._pace.step_s - (now - since), 0.0)
        if self._joint is not None and not at_boundary:
            boundary_s += self._pace.step_s  # several ranks hear of an ending after one step and act after the next
        new_steps = self.new_steps + (not at_boundary)
        costs = self.costs
        return last_save(left_s, costs.expected_last_s, flying, new_steps, boundary_s, costs.durable_s)

    def fresh(self) -> bool:
        """Whether the newest snapshot is so recent that a recommendation to save adds nothing."""
        age_s = time.monotonic() - self._begun_at
        return self._begun > 0 and age_s < self._cadence.floor_s * self._identity.time_scale / 2

    def collect(self) -> Flight | None:
        """The save that was under way, once it is over; each is returned once."""
        flight = self.flight
        if flight is None or not flight.over.is_set():
            return None
        self.flight = None
        self._last_save = max(self._last_save, flight.save)
        if isinstance(flight.failure, Torn):
            self._taker.lazy = False
            say("snapshots are copied at once from now on: lazy ones need that only the optimizer changes parameters")
        if flight.commit is not None:
            old = self.costs
            stall_s, whole_s = flight.commit.stall_s, flight.whole_s
            known = old.durable_s > 0
            if flight.commit.reason is SaveReason.NOTICE:
                self.costs = replace(old, last_s=whole_s)
            else:
                self.costs = replace(
                    old,
                    stall_s=(old.stall_s + stall_s) / 2 if known else stall_s,
                    durable_s=(old.durable_s + whole_s) / 2 if known else whole_s,
                )
            if flight.commit.health is not Health.HEALTHY:
                say(f"checkpoint {flight.commit.id} is {flight.commit.health.value}: {flight.judgement.reason}")
        return flight

    def give_up_if_stuck(self) -> None:
        """Give up a save that is stuck, so that a newer one can begin; one that makes headway is let finish."""
        if self.flight is not None and self.flight.trouble:
            self.flight.cancel()

    def begin(self, step: int, reason: SaveReason, data: Data, in_place: bool = False) -> Flight | None:
        """Take a snapshot and send it off; None when that is impossible now, or one is under way.

        Args:
            in_place: the training stands still until this save is over: its arrays are sent from where they
                are, without a copy.
        """
        if self.flight is not None:
            return None
        begun = time.monotonic()
        try:
            self._take_off(step, reason, data, begun, in_place)
        except (InvalidInput, MemoryError, OSError) as error:
            self._cannot = f"no snapshot can be taken: {error}"
            say(f"{self._cannot}; training goes on", everywhere=True)
            self._begun_at = begun
            if self._departed is None and self._joint is None:
                return None
            self._last_save += 1
            if self._departed is None and self._joint is not None:
                number = self._last_save
                self._departed = self._joint.refusal(self._ports, self._identity, number, step, reason, self._cannot)
                self._departed.start()
            self.flight = self._departed
        else:
            self._cannot = ""
        self._begun, self._begun_at, self.new_steps = self._begun + 1, begun, 0
        self._stepped_at = time.monotonic()  # the stall is no part of the next step
        return self.flight

    def _take_off(self, step: int, reason: SaveReason, data: Data, begun: float, in_place: bool) -> None:
        known = self._judged(step, reason)
        self._departed = None
        shot = self._taker.aim(self._state(step, data), self._last_save + 1, in_place)
        snapshot = Snapshot(
            step,
            reason,
            shot.tree,
            shot.cargo,
            known,
            begun,
            self._framework.threads,
            versions(self._framework),
            self.code,
            self._vitals.losses,
            self._vitals.rollbacks,
            self._vitals.back_to,
        )
        made = Flight if self._joint is None else self._joint.flight
        flight = made(self._ports, self._identity, snapshot, self._last_save + 1, self.memory.base())

        def start() -> None:
            self._departed = flight
            shot.cargo.stall_s = time.monotonic() - begun
            flight.start()

        shot.copy(start)
        self._last_save += 1
        self.flight = flight

    def _judged(self, step: int, reason: SaveReason) -> Judgement:
        """What is known of the state's health before its arrays are looked at. A notice leaves no time to ask."""
        hurried = reason is SaveReason.NOTICE
        passing = hurried or bool(self._vitals.back_to)  # after a rollback they are those of the state that is gone
        return self._vitals.judge(step, "" if passing else self._look_at_gradients(), not hurried)

    def _look_at_gradients(self) -> str:
        # Those of a step that was taken are in the moments or the parameters, which are judged without a stall. This
        # finds those of a step that the script has skipped, as long as it costs next to nothing.
        if self._look_s > max(LOOK_SHARE * self._pace.step_s, LOOK_LEAST_S):
            return ""
        begun = time.perf_counter()
        found = self._framework.bad_gradients()
        self._look_s = time.perf_counter() - begun
        return found

    def _state(self, step: int, data: Data) -> dict[str, Any]:
        return {**self._framework.capture(), "data": data(), "step": step}


def versions(framework: Framework) -> dict[str, str]:
    """Of everything that may decide the bits."""
    return {"python": platform.python_version(), "spotrelay": spotrelay.__version__, **framework.versions}
