"""Training state as it was after one step: which bytes, where they stand, and when they have arrived there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spotrelay.core.checkpoint import Rollback, SaveReason
from spotrelay.core.errors import InvalidInput
from spotrelay.core.health import Judgement
from trainer_shim.shards import Plan
from trainer_shim.staging import Places
from trainer_shim.uploading.carrier import Carrier


class Torn(InvalidInput):
    """Something wrote to an array while it was being copied. The snapshot is void."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a save needs to know of one step."""

    step: int  # steps finished
    reason: SaveReason
    tree: dict[str, Any]  # the manifest's part about the state
    cargo: Cargo
    known: Judgement  # from the losses and the gradients; the arrays are looked at on their way
    taken_at: float  # monotonic
    threads: int
    versions: dict[str, str] = field(default_factory=dict)
    code: str = ""
    losses: tuple[float, ...] = ()  # the band of recent losses
    rollbacks: tuple[Rollback, ...] = ()
    back_to: str = ""  # id of the checkpoint that was rolled back to since the one before

    @property
    def stall_s(self) -> float:
        """How long the training has waited for this snapshot so far."""
        return self.cargo.stall_s


class Cargo:
    """The shards of a snapshot, from the first byte that is copied to the last that is sent.

    Args:
        broken: names of a shard's parameters and optimizer arrays that are not finite.
        places: where the shards stand; None when they stay where the framework keeps them.
    """

    def __init__(
        self, carrier: Carrier, plan: Plan, broken: Callable[[int], tuple[str, ...]], places: Places | None = None
    ) -> None:
        self.carrier = carrier
        self.plan = plan
        self.broken = broken
        self.stall_s = 0.0  # how long the training has waited for these bytes
        self.sent = 0  # bytes that the bucket has, or had already
        self._places = places
        self._failure: Exception | None = None
        self._there = [threading.Event() for _ in plan.shards]
        self._whole = threading.Event()
        self._lock = threading.Lock()

    def arrived(self, shard: int) -> None:
        """This shard stands where it will be sent from."""
        self._there[shard].set()

    def complete(self) -> None:
        """Every shard has arrived, and none was written to on its way."""
        for each in self._there:
            each.set()
        self._whole.set()

    def spoil(self, failure: Exception) -> None:
        """It will never be complete."""
        self._failure = self._failure or failure
        self.complete()

    def wait_for(self, shard: int | None = None) -> None:
        """Return once a shard has arrived, or all of it is complete.

        Raises:
            Torn, TimeoutError: it never will.
        """
        (self._whole if shard is None else self._there[shard]).wait()
        if self._failure is not None:
            raise self._failure

    def done_with(self, shard: int) -> None:
        """The bucket has this shard: another may have its place."""
        with self._lock:
            self.sent += self.plan.shards[shard].size
        if self._places is not None:
            self._places.free(shard)

    def again(self) -> bool:
        """Begin to send once more from the first shard; False where shards have given up their places meanwhile."""
        if self._places is not None and not self._places.whole:
            return False
        with self._lock:
            self.sent = 0
        return True

    def abandon(self) -> None:
        """Nobody sends any more: who waits for a place need not wait on."""
        if self._places is not None:
            self._places.close()

    def settle(self) -> None:
        """Return once the training may write to its arrays again."""
        if self._whole.is_set():
            return
        begun = time.monotonic()
        self._whole.wait()
        self.stall_s += time.monotonic() - begun
