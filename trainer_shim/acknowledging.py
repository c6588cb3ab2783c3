"""What each rank tells rank 0 once its shards are durable, and how that becomes one manifest.

An acknowledgement names the run, the generation, the save and the step that it is for; one of anything else is
refused, and so is a set in which a rank is missing. It travels between living processes only and is not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from spotrelay.core.checkpoint import CheckpointId, Health, Shard
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.health import Judgement
from trainer_shim.ranks import by_rank

GRAVEST = (Health.BAD, Health.SUSPECT, Health.HEALTHY)


class NotAcknowledged(SpotrelayError):
    """A save that cannot be committed as a whole. Nothing of it exists; the next one is due as ever."""


@dataclass(frozen=True)
class Acknowledgement:
    """One rank's shards are durable, or will never be."""

    run_id: str
    generation: int
    save: int
    step: int
    rank: int
    failure: str = ""  # why they never will be
    layout: str = ""  # digest of the table of the common arrays
    witness: str = ""  # of a piece of the common arrays, for a look at whether they are the same
    numbers: tuple[int, ...] = ()  # of its common shards
    shards: tuple[Shard, ...] = ()  # as many common ones, then its own
    arrays: dict[str, Any] = field(default_factory=dict)  # its own
    state: dict[str, Any] = field(default_factory=dict)  # its own part of the tree
    health: Health = Health.HEALTHY
    why: str = ""  # it is not healthy
    stall_s: float = 0.0
    builds_on: tuple[CheckpointId, ...] = ()  # whose shards it names again

    @property
    def own(self) -> tuple[Shard, ...]:
        return self.shards[len(self.numbers) :]


@dataclass(frozen=True)
class Whole:
    """What all ranks have saved together, for the manifest."""

    shards: tuple[Shard, ...]
    tree: dict[str, Any]
    judgement: Judgement
    stall_s: float  # of the rank that stood longest


def join(acks: Sequence[Acknowledgement], common: dict[str, Any], state: dict[str, Any]) -> Whole:
    """One checkpoint out of what all ranks, in their order, have acknowledged.

    Args:
        common: the table of the common arrays.
        state: rank 0's whole tree.

    Raises:
        NotAcknowledged: a rank failed, or they did not all save the same; says which.
    """
    _check(acks)
    numbered = dict(pair for ack in acks for pair in zip(ack.numbers, ack.shards, strict=False))
    shards = [numbered[number] for number in range(len(numbered))]
    tables = []
    for ack in acks:
        tables.append(_shifted(ack.arrays, len(shards)))
        shards += ack.own
    others = [{"arrays": tables[ack.rank], "state": ack.state} for ack in acks[1:]]
    tree = {"arrays": {**common, **tables[0]}, "state": state, "ranks": [{}, *others]}
    return Whole(tuple(shards), tree, _worst(acks), max(ack.stall_s for ack in acks))


def _check(acks: Sequence[Acknowledgement]) -> None:
    failures = by_rank([ack.failure for ack in acks])
    if failures:
        raise NotAcknowledged(failures)
    first = acks[0]
    for rank, ack in enumerate(acks):
        if (ack.run_id, ack.generation, ack.save, ack.step, ack.rank) != (
            first.run_id, first.generation, first.save, first.step, rank,
        ):  # fmt: skip
            raise NotAcknowledged(f"rank {rank} acknowledged another save than rank 0: {ack.save} of step {ack.step}")
        if ack.layout != first.layout:
            raise NotAcknowledged(f"rank {rank} holds other arrays than rank 0: attach() the same on every rank")
        if ack.witness != first.witness:
            raise NotAcknowledged(
                f"the model or the optimizer of rank {rank} differs from rank 0's: only training whose ranks stay "
                "alike can be saved, as DistributedDataParallel keeps them"
            )
    numbers = sorted(number for ack in acks for number in ack.numbers)
    if numbers != list(range(len(numbers))) or any(len(ack.shards) < len(ack.numbers) for ack in acks):
        raise NotAcknowledged("the ranks' shards do not add up to one state")


def _shifted(table: dict[str, Any], by: int) -> dict[str, Any]:
    return {
        name: {**each, "at": [[shard + by, entry, start] for shard, entry, start in each["at"]]}
        for name, each in table.items()
    }


def _worst(acks: Sequence[Acknowledgement]) -> Judgement:
    gravest = min(acks, key=lambda ack: GRAVEST.index(ack.health))
    told = f"rank {gravest.rank}: {gravest.why}" if gravest.why and gravest.rank else gravest.why
    return Judgement(gravest.health, told)
