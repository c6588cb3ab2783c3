"""What a manifest says a checkpoint's arrays are, and which of their bytes each shard brings.

All of it is known before a shard is fetched, and all of it is covered by the manifest's digest: so a
damaged shard can only ever write where the manifest sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from spotrelay.core.checkpoint import Shard
from spotrelay.core.errors import InvalidInput
from trainer_shim.shards import whole_shape, width


@dataclass(frozen=True)
class ArraySpec:
    """One array, before there is memory for it."""

    name: str
    dtype: str  # the framework's own name
    shape: tuple[int, ...]
    size: int  # bytes


@dataclass(frozen=True)
class Span:
    """A run of bytes of one array."""

    array: str
    start: int  # first byte within the array
    size: int  # bytes


@dataclass(frozen=True)
class Inventory:
    """Every array of a checkpoint, and every shard's part in them."""

    arrays: dict[str, ArraySpec]
    shards: tuple[dict[str, Span], ...]  # by shard, by the entry in its header
    partial: bool = False  # whether its shards hold arrays of others too

    @property
    def size(self) -> int:
        """Bytes of all arrays together."""
        return sum(each.size for each in self.arrays.values())


def inventory(table: dict[str, Any], stored: Sequence[Shard], partial: bool = False) -> Inventory:
    """What a manifest's table of arrays says.

    Args:
        partial: the table is a part of the manifest's, so that its shards hold other arrays too.

    Raises:
        InvalidInput: it is no such table, or its arrays cannot lie in these shards.
    """
    shards: tuple[dict[str, Span], ...] = tuple({} for _ in stored)
    arrays: dict[str, ArraySpec] = {}
    try:
        for name, described in table.items():
            arrays[name] = spec = _spec(name, described)
            for shard, entry, span in _spans(spec, described["at"]):
                if not 0 <= shard < len(shards) or shards[shard].setdefault(entry, span) is not span:
                    raise InvalidInput(f"{name} lies where no shard or something else is")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"its table of arrays has a form that no version writes ({error!r})") from error
    for each, spans in zip(stored, shards, strict=True):
        if sum(span.size for span in spans.values()) > each.size - 8:
            raise InvalidInput(f"{each.key} of {each.size} bytes cannot hold what is said to be in it")
    return Inventory(arrays, shards, partial)


def _spec(name: str, described: Any) -> ArraySpec:
    dtype, shape = described["dtype"], described["shape"]
    if type(dtype) is not str or not whole_shape(shape):
        raise InvalidInput(f"{name} is {str(dtype)[:40]} of shape {str(shape)[:40]}, which is no array")
    size = described.get("size", prod(shape) * width(dtype))  # the first manifests did not say it
    plain = "." not in dtype  # others are a framework's own, of several words each perhaps
    if type(size) is not int or size < 0 or (plain and size != prod(shape) * width(dtype)):
        raise InvalidInput(f"{name} has {str(size)[:40]} bytes, which no array has")
    return ArraySpec(name, dtype, tuple(shape), size)


def _spans(spec: ArraySpec, at: list[list[Any]]) -> list[tuple[int, str, Span]]:
    """The array's pieces, which have to cover it without a gap and in their order."""
    starts = [start for _, _, start in at]
    ends = [*starts[1:], spec.size]
    found = []
    for (shard, entry, start), end in zip(at, ends, strict=True):
        if type(shard) is not int or type(entry) is not str or type(start) is not int or not 0 <= start <= end:
            raise InvalidInput(f"{spec.name} is not made of the pieces that it is said to be made of")
        found.append((shard, entry, Span(spec.name, start, end - start)))
    if not starts or starts[0] != 0:
        raise InvalidInput(f"{spec.name} has no beginning")
    return found
