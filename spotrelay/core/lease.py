"""The lease: which attempt may commit. Broken only by release or by fencing, never by a clock.

One item per run. `generation` only grows. The control plane raises `floor` to fence every
generation below it; an attempt takes a free lease, commits while it holds it, and releases it.
Each rule here is the condition of one conditional write, in the adapters and in the fakes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.errors import Fenced, LeaseHeld

LAST_SAVE = 10**9  # above every save of a generation


@dataclass(frozen=True)
class Lease:
    """Who may commit checkpoints of a run."""

    run_id: str
    generation: int = 0  # the last one that took the lease; 0 before the first
    holder: str | None = None  # instance id while held
    floor: int = 1  # generations below this are fenced
    save: int = 0  # saves committed so far under `generation`

    @property
    def held(self) -> bool:
        """Whether somebody may commit right now."""
        return self.holder is not None and self.generation >= self.floor


def may_commit(lease: Lease, generation: int, holder: str) -> bool:
    """The condition of every commit."""
    return lease.holder == holder and lease.generation == generation and generation >= lease.floor


def may_promote(lease: Lease, generation: int, holder: str) -> bool:
    """The condition of every promotion: whoever holds the lease speaks about its own and earlier checkpoints."""
    return lease.held and lease.holder == holder and generation <= lease.generation


def settled(lease: Lease) -> CheckpointId:
    """The highest number of a save of which it is certain for good whether it was committed.

    A commit needs the lease under its own generation and a higher save than the newest one; who
    has lost the lease never gets it back. So whatever has no commit up to here never will have.
    """
    if lease.held:
        return CheckpointId(lease.generation, lease.save)
    return CheckpointId(max(lease.generation, lease.floor - 1), LAST_SAVE)


def take(lease: Lease, generation: int, holder: str) -> Lease:
    """The lease after `holder` took it for `generation`; taking one's own again changes nothing.

    Raises:
        Fenced: a later attempt has been put in place; stop for good.
        LeaseHeld: an earlier attempt still holds it; wait.
    """
    if generation < lease.floor or generation < lease.generation:
        successor = max(lease.floor, lease.generation)
        raise Fenced(f"run {lease.run_id}: attempt {generation} has been replaced (the next is {successor})")
    if may_commit(lease, generation, holder):
        return lease
    if generation == lease.generation:
        raise Fenced(f"run {lease.run_id}: attempt {generation} gave its lease back, or another machine has it")
    if lease.held:
        raise LeaseHeld(f"run {lease.run_id}: attempt {lease.generation} still holds the lease")
    return replace(lease, generation=generation, holder=holder, save=0)


def release(lease: Lease, generation: int, holder: str) -> Lease:
    """The lease after its holder gave it back. Anyone else's release changes nothing."""
    return replace(lease, holder=None) if may_commit(lease, generation, holder) else lease


def fence(lease: Lease, floor: int) -> Lease:
    """The lease after the control plane shut out every generation below `floor`."""
    if floor <= lease.floor:
        return lease
    return replace(lease, floor=floor, holder=None if lease.generation < floor else lease.holder)
