"""Who stages and uploads what when several ranks hold the same state: each array once, all ranks at once.

Every rank makes the same plan of what all of them hold alike and takes every n-th shard of it. What a rank has
for itself, such as its random generators, goes into shards of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from trainer_shim.shards import Plan, ShardPlan, limit_for, plan
from trainer_shim.tree import Leaf

PAGE = 4096
SMALLEST = 2**20  # bytes of a shard below which sharing it out gains nothing


class Place(Enum):
    """Whose copy of an array is saved."""

    ANY = "any"  # the same bits on every rank: whoever has the time
    FIRST = "first"  # rank 0's counts: it hands its own to the others
    EACH = "each"  # every rank has its own


@dataclass(frozen=True)
class Share:
    """What one rank stages and uploads."""

    plan: Plan  # of this rank's shards: those that it took of the common ones, then its own
    numbers: tuple[int, ...]  # of the shards that it took, among the common ones
    indices: tuple[int, ...]  # of the common arrays, among all
    common: dict[str, Any]  # the table of the common arrays; the same on every rank
    own: dict[str, Any]  # the table of its own arrays; shards counted from its first own one
    layout: str  # digest of the common table: ranks whose tables differ hold different states


def share(leaves: Sequence[Leaf], place: Callable[[str], Place], rank: int, size: int, most: int | None) -> Share:
    """This rank's part of saving these arrays.

    Args:
        most: bytes that the shards of one save may take in this rank's memory at a time; None for no bound.
    """
    common = [i for i, leaf in enumerate(leaves) if place(leaf.name) is Place.ANY]
    kinds = (Place.EACH, Place.FIRST) if rank == 0 else (Place.EACH,)
    own = [i for i, leaf in enumerate(leaves) if place(leaf.name) in kinds]
    total = sum(leaves[i].size for i in common)
    fair = max(-(-total // size), SMALLEST)
    whole = plan([leaves[i] for i in common], min(limit_for(total, most), fair))
    private = plan([leaves[i] for i in own], limit_for(sum(leaves[i].size for i in own), most))
    taken = [each for each in whole.shards if each.index % size == rank] if common else []
    kept = [*_counted(taken, common), *_counted(private.shards if own else (), own)]
    numbers = tuple(each.index for each in taken)
    return Share(_close(kept), numbers, tuple(common), whole.arrays, private.arrays, _digest(whole.arrays))


def _counted(shards: Sequence[ShardPlan], indices: Sequence[int]) -> list[ShardPlan]:
    """The same shards, with leaves counted as in the whole state."""
    return [
        replace(each, pieces=tuple(replace(piece, leaf=indices[piece.leaf]) for piece in each.pieces))
        for each in shards
    ]


def _close(shards: Sequence[ShardPlan]) -> Plan:
    """A plan of only these shards, close together."""
    placed = []
    cursor = 0
    for index, each in enumerate(shards):
        placed.append(replace(each, index=index, begin=cursor, end=cursor + each.size))
        cursor = -(-placed[-1].end // PAGE) * PAGE
    return Plan(tuple(placed), max(cursor, 1), {})


def _digest(table: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
