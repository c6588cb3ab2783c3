"""Takes snapshots: at once, beside the next forward and backward, in turns under a bound, or not copied at all.

At once is the rule: every array is copied into the staging buffer, which is the only thing that the training
waits for. *Lazy*: what only the optimizer changes is copied while the next forward and backward run, and the
optimizer waits for what is left. *Bounded*: the buffer is smaller than the state, so that shards take turns in
it, and the training waits for the bucket. *In place*: the training stands still anyway, so nothing is copied.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.ports import ObjectStore
from trainer_shim import shards
from trainer_shim.framework import Framework
from trainer_shim.joint import Joint
from trainer_shim.shards import Plan, ShardPlan
from trainer_shim.snapshot import Cargo, Torn
from trainer_shim.staging import Places, StagingBuffer, room_for
from trainer_shim.tree import Leaf, flatten
from trainer_shim.uploading.carrier import Carrier, CarrierHere
from trainer_shim.uploading.process import UploadProcess


@dataclass(frozen=True)
class Wishes:
    """How the user wants snapshots to be taken."""

    lazy: bool = False
    staging_bytes: int | None = None  # of host memory at the most; None: as much as the state has


PLAIN = Wishes()


@dataclass(frozen=True)
class Shot:
    """A snapshot that is about to be taken."""

    tree: dict[str, Any]  # the manifest's part about the state
    cargo: Cargo
    copy: Callable[[Callable[[], None]], None]  # takes it; calls its argument when sending may begin


class SnapshotTaker:
    """Keeps the staging buffer and the plan from one snapshot to the next."""

    def __init__(
        self,
        framework: Framework,
        objects: ObjectStore,
        uploader: UploadProcess | None,
        wishes: Wishes,
        patience_s: float,
        joint: Joint | None = None,
    ) -> None:
        self._joint = joint  # None: this process saves by itself
        self.staging = StagingBuffer(framework.pin)
        self._framework = framework
        self._objects = objects
        self._uploader = uploader
        self._wishes = wishes
        self._patience_s = patience_s
        self._layout: tuple[tuple[object, ...], Plan] | None = None
        self._newest: Cargo | None = None
        self.lazy = wishes.lazy

    def prepare(self, state: dict[str, Any]) -> None:
        """See that a state can be saved; warm the buffer and start the upload process beside the training.

        Raises:
            InvalidInput: something in it cannot be held by a checkpoint; names it.
        """
        _, leaves = flatten(state, self._framework.describe)
        self.staging.prepare(room_for(self._planned(leaves), self._wishes.staging_bytes))
        if self._uploader is not None and self.staging.descriptor is not None:
            with contextlib.suppress(SpotrelayError):  # a save that needs it starts it again, and tells
                self._uploader.start()

    def aim(self, state: dict[str, Any], save: int, in_place: bool) -> Shot:
        """Make ready for a snapshot of this state; no array is touched yet.

        Args:
            save: its number.
            in_place: the training stands still until the save is over.
        """
        self.settle()  # a save that failed may have left its copying behind
        tree, leaves = flatten(state, self._framework.describe)
        plan = self._planned(leaves)
        shot = self._in_place(leaves, plan) if in_place else None
        cargo, copy = shot or self._copied(leaves, plan)
        self._newest = cargo
        told = {"arrays": plan.arrays, "state": tree} if self._joint is None else self._joint.tree(tree, leaves, save)
        return Shot(told, cargo, copy)

    def settle(self) -> None:
        """Return once nothing is copied any more: the training is about to change its arrays."""
        if self._newest is not None:
            self._newest.settle()

    def close(self) -> None:
        """End the upload process."""
        if self._uploader is not None:
            self._uploader.close()

    def _planned(self, leaves: list[Leaf]) -> Plan:
        shape = tuple((leaf.name, leaf.dtype, leaf.shape, leaf.group) for leaf in leaves)
        if self._layout is None or self._layout[0] != shape:
            self._layout = (shape, self._plan(leaves, self._wishes.staging_bytes))
        return self._layout[1]

    def _plan(self, leaves: list[Leaf], most: int | None) -> Plan:
        if self._joint is not None:
            return self._joint.plan(leaves, most)
        return shards.plan(leaves, shards.limit_for(sum(leaf.size for leaf in leaves), most))

    def _in_place(
        self, leaves: Sequence[Leaf], plan: Plan
    ) -> tuple[Cargo, Callable[[Callable[[], None]], None]] | None:
        bodies = self._framework.bodies(leaves, plan)
        if bodies is None:
            return None
        cargo = Cargo(
            CarrierHere(self._objects, bodies.__getitem__),
            plan,
            lambda shard: self._framework.not_finite(leaves, plan, shard, None),
        )
        cargo.complete()
        return cargo, lambda start: start()

    def _copied(self, leaves: Sequence[Leaf], plan: Plan) -> tuple[Cargo, Callable[[Callable[[], None]], None]]:
        buffer = self.staging.reserve(room_for(plan, self._wishes.staging_bytes))
        places = Places(plan, len(buffer), self._patience_s)
        copying = _Copying(self._framework, leaves, plan, places, buffer)
        cargo = Cargo(self._carrier(plan, places, copying), plan, copying.broken, places)
        if not places.whole:
            return cargo, lambda start: copying.in_turns(cargo, start)
        late = self._late(plan)
        if not late:
            return cargo, lambda start: copying.at_once(cargo, start)
        return cargo, lambda start: copying.lazily(late, cargo, start)

    def _carrier(self, plan: Plan, places: Places, copying: _Copying) -> Carrier:
        if self._uploader is None or self.staging.descriptor is None:
            return CarrierHere(self._objects, copying.memory)
        return self._uploader.carrier(self.staging, [shard.size for shard in plan.shards], places)

    def _late(self, plan: Plan) -> list[ShardPlan]:
        if not self.lazy or not self._framework.guard(self.settle):
            return []
        return [shard for shard in plan.shards if all(self._framework.keeps_still(group) for group in shard.groups)]


class _Copying:
    """Copies arrays into the staging buffer, shard by shard."""

    def __init__(
        self, framework: Framework, leaves: Sequence[Leaf], plan: Plan, places: Places, buffer: memoryview
    ) -> None:
        self._framework = framework
        self._leaves = leaves
        self._plan = plan
        self._places = places
        self._buffer = buffer

    def memory(self, shard: int) -> memoryview:
        """Where a shard that has a place stands."""
        begin = self._places.begin_of(shard)
        return self._buffer[begin : begin + self._plan.shards[shard].size]

    def broken(self, shard: int) -> tuple[str, ...]:
        """Names of this shard's arrays that are not finite."""
        return self._framework.not_finite(self._leaves, self._plan, shard, self.memory(shard))

    def at_once(self, cargo: Cargo, start: Callable[[], None]) -> None:
        """Copy everything; each shard may be sent as soon as it is there."""
        begun = time.monotonic()
        start()
        try:
            for shard in self._plan.shards:
                self._copy(shard)
                self._framework.landed()
                cargo.arrived(shard.index)
        except BaseException as error:
            cargo.spoil(error if isinstance(error, Exception) else Torn("the save was broken off"))
            raise
        cargo.stall_s += time.monotonic() - begun
        cargo.complete()

    def in_turns(self, cargo: Cargo, start: Callable[[], None]) -> None:
        """Copy each shard when an earlier one has left its place. Ends early when the bucket does not keep up."""
        begun = time.monotonic()
        start()
        try:
            for shard in self._plan.shards:
                self._places.take(shard.index)
                self._copy(shard)
                self._framework.landed()
                cargo.arrived(shard.index)
        except BaseException as error:
            cargo.spoil(error if isinstance(error, Exception) else Torn("the save was broken off"))
            if not isinstance(error, TimeoutError):
                raise
        cargo.stall_s += time.monotonic() - begun
        cargo.complete()

    def lazily(self, late: Sequence[ShardPlan], cargo: Cargo, start: Callable[[], None]) -> None:
        """Copy what may change before the optimizer's next step; the rest beside the training.

        Whether somebody wrote to the rest all the same is seen afterwards, by the framework's own count.
        """
        before = self._framework.stamps(self._leaves)
        self._framework.mark(self._leaves)
        waiting = {shard.index for shard in late}
        for shard in self._plan.shards:
            if shard.index not in waiting:
                self._copy(shard)
        self._framework.landed()

        def copy_the_rest() -> None:
            try:
                for shard in late:
                    self._copy(shard)
                self._framework.landed()
                if self._framework.stamps(self._leaves) != before:
                    raise Torn("an array was written to between two steps of the optimizer")
            except Exception as error:  # noqa: BLE001 - the save fails with it
                cargo.spoil(error)
            cargo.complete()

        thread = threading.Thread(target=copy_the_rest, name="spotrelay-snapshot", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be had
            copy_the_rest()
        start()

    def _copy(self, shard: ShardPlan) -> None:
        memory = self.memory(shard.index)
        memory[: len(shard.header)] = shard.header
        self._framework.stage(self._leaves, self._plan, shard.index, memory)
