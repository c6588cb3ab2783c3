"""When to save, the copy that training waits for, and the one save that may be under way."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import spotrelay
from spotrelay.core.cadence import Costs, Progress, due
from spotrelay.core.checkpoint import Health, SaveReason
from spotrelay.core.errors import InvalidInput
from spotrelay.core.health import Judgement, LossBand, joined
from spotrelay.core.spec import Cadence
from trainer_shim import shards
from trainer_shim.environment import Identity
from trainer_shim.framework import Framework
from trainer_shim.saving import Flight, Snapshot
from trainer_shim.shards import Plan
from trainer_shim.staging import StagingBuffer
from trainer_shim.tree import Leaf, flatten
from trainer_shim.voice import say
from trainer_shim.wiring import Ports

Data = Callable[[], dict[str, Any]]  # says where in the data the next batch is


class Checkpointer:
    """Takes snapshots of what the framework holds and sends them off, one at a time."""

    def __init__(
        self, ports: Ports, identity: Identity, framework: Framework, cadence: Cadence, costs: Costs, saves: int
    ) -> None:
        self.costs = costs
        self.flight: Flight | None = None
        self.code = ""  # digest of the pinned code, for the manifests
        self.new_steps = 0  # finished since the newest snapshot
        self._ports = ports
        self._identity = identity
        self._framework = framework
        self._cadence = cadence
        self._band = LossBand()
        self._staging = StagingBuffer()
        self._layout: tuple[tuple[object, ...], Plan] | None = None
        self._last_save = saves  # number of the newest save of this generation
        self._begun = 0  # saves begun by this process
        self._begun_at = time.monotonic()
        self._cannot = ""  # why no snapshot can be taken

    def trouble(self) -> str:
        """What keeps checkpoints from being committed at present; empty when nothing does."""
        return self._cannot or (self.flight.trouble if self.flight is not None else "")

    def survey(self, data: Data) -> None:
        """See that everything can be saved, and warm the staging buffer beside the first steps.

        Raises:
            InvalidInput: something attached cannot be held by a checkpoint; names it.
        """
        _, leaves = flatten(self._state(0, data), self._framework.describe)
        self._staging.prepare(self._planned(leaves).size)

    def warm(self, data: Data) -> None:
        """Let the staging buffer grow to what the state has become, beside the next steps."""
        try:
            self.survey(data)
        except (InvalidInput, MemoryError, OSError) as error:
            self._cannot = f"no snapshot can be taken: {error}"

    def see(self, step: int, loss: float) -> None:
        """Take note of a step's loss."""
        self._band.see(step, loss)

    def due(self) -> SaveReason | None:
        """Why a checkpoint should be begun now, if one should."""
        progress = Progress(time.monotonic() - self._begun_at, self.new_steps, self._begun)
        return due(self._cadence, self.costs, progress, self._identity.time_scale)

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
        if flight.commit is not None:
            old = self.costs
            stall_s, whole_s = flight.commit.stall_s, flight.whole_s
            known = old.durable_s > 0
            self.costs = replace(
                old,
                stall_s=(old.stall_s + stall_s) / 2 if known else stall_s,
                durable_s=(old.durable_s + whole_s) / 2 if known else whole_s,
            )
            if flight.commit.health is not Health.HEALTHY:
                say(f"checkpoint {flight.commit.id} is {flight.commit.health.value}: {flight.judgement.reason}")
        return flight

    def begin(self, step: int, reason: SaveReason, data: Data) -> Flight | None:
        """Take a snapshot and send it off; None when that is impossible now.

        A save that is stuck is given up for the new one; a save that makes headway is let finish.
        """
        if self.flight is not None:
            if self.flight.trouble:
                self.flight.cancel()
            return None
        begun = time.monotonic()
        try:
            snapshot = self._snapshot(step, reason, data, begun)
        except (InvalidInput, MemoryError, OSError) as error:
            self._cannot = f"no snapshot can be taken: {error}"
            say(f"{self._cannot}; training goes on")
            self._begun_at = begun
            return None
        self._cannot = ""
        self._begun, self._begun_at, self.new_steps = self._begun + 1, begun, 0
        self._last_save += 1
        self.flight = Flight(self._ports, self._identity, snapshot, self._last_save)
        self.flight.start()
        return self.flight

    def _snapshot(self, step: int, reason: SaveReason, data: Data, begun: float) -> Snapshot:
        tree, leaves = flatten(self._state(step, data), self._framework.describe)
        layout = self._planned(leaves)
        buffer = self._staging.reserve(layout.size)
        for offset, header in layout.headers:
            buffer[offset : offset + len(header)] = header
        self._framework.stage(leaves, layout, buffer)
        by_loss = self._band.judge()

        def judge() -> Judgement:
            return joined(by_loss, self._framework.not_finite(layout, buffer))

        return Snapshot(
            step,
            reason,
            {"arrays": layout.arrays, "state": tree},
            layout,
            buffer,
            judge,
            time.monotonic() - begun,
            begun,
            self._framework.threads,
            versions(self._framework),
            self.code,
        )

    def _state(self, step: int, data: Data) -> dict[str, Any]:
        return {**self._framework.capture(), "data": data(), "step": step}

    def _planned(self, leaves: list[Leaf]) -> Plan:
        shape = tuple((leaf.name, leaf.dtype, leaf.shape) for leaf in leaves)
        if self._layout is None or self._layout[0] != shape:
            self._layout = (shape, shards.plan(leaves, shards.LIMIT))
        return self._layout[1]


def versions(framework: Framework) -> dict[str, str]:
    """Of everything that may decide the bits."""
    return {"python": platform.python_version(), "spotrelay": spotrelay.__version__, **framework.versions}
