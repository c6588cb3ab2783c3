"""A distributed state's layout as JSON in a manifest: which chunk of which tensor is in which shard.

What torch.distributed.checkpoint calls `Metadata`, without its pickle: read with suspicion, because a chunk
outside its tensor, one that overlaps another or a size that does not fit would put wrong bytes into a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from spotrelay.core.checkpoint import Shard
from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.torch_kinds import dtype_of, name_of
from trainer_shim.layouts import Box, check_tiling, numbers
from trainer_shim.tree import unflatten

KIND = "dcp"  # of the manifest's tree


@dataclass(frozen=True)
class Written:
    """Where the bytes of one array or chunk went: shard, entry in its header, bytes; in order."""

    pieces: tuple[tuple[Shard, str, int], ...]


@dataclass(frozen=True)
class Value:
    """Something that is no tensor, as JSON, with the arrays that it refers to."""

    tree: Any
    arrays: dict[str, tuple[str, tuple[int, ...], Written]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """A run of bytes of a chunk."""

    shard: int  # index in the manifest
    entry: str
    start: int  # first byte within the chunk
    size: int  # bytes


@dataclass(frozen=True)
class Held:
    """An array of a value."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Layout:
    """What a manifest says of a distributed state."""

    metadata: Metadata
    parts: dict[MetadataIndex, tuple[Part, ...]]  # of each chunk
    values: dict[str, Any]  # JSON trees, by name
    arrays: dict[str, dict[str, Held]]  # of each value, by name


def encode(
    metadata: Metadata, written: dict[MetadataIndex, Written], values: dict[str, Value], planner: Any
) -> tuple[tuple[Shard, ...], dict[str, Any]]:
    """Shards in the manifest's order, and the manifest's part about the state.

    Args:
        planner: the planner's own data as a JSON tree.
    """
    everything = [*written.values(), *(each for value in values.values() for _, _, each in value.arrays.values())]
    shards = sorted({shard for each in everything for shard, _, _ in each.pieces}, key=lambda shard: shard.key)
    index = {shard: number for number, shard in enumerate(shards)}

    def at(each: Written) -> list[list[Any]]:
        return [[index[shard], entry, size] for shard, entry, size in each.pieces]

    arrays = {
        name: {
            "dtype": name_of(each.properties.dtype),
            "shape": list(each.size),
            "chunks": [
                {
                    "offsets": list(chunk.offsets),
                    "sizes": list(chunk.sizes),
                    "at": at(written[MetadataIndex(name, chunk.offsets)]),
                }
                for chunk in each.chunks
            ],
        }
        for name, each in metadata.state_dict_metadata.items()
        if isinstance(each, TensorStorageMetadata)
    }
    others = {
        name: {
            "tree": value.tree,
            "arrays": {
                key: {"dtype": dtype, "shape": list(shape), "at": at(each)}
                for key, (dtype, shape, each) in value.arrays.items()
            },
        }
        for name, value in values.items()
    }
    return tuple(shards), {"kind": KIND, "arrays": arrays, "values": others, "planner": planner}


def decode(tree: dict[str, Any], shards: Sequence[Shard]) -> Layout:
    """The layout in a manifest's tree.

    Raises:
        InvalidInput: it is none that `encode` makes; says where.
    """
    if tree.get("kind") != KIND:
        raise InvalidInput("this checkpoint was not saved through torch.distributed.checkpoint: attach() resumes it")
    try:
        return _Reading(shards).layout(tree)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the layout has a form that no version writes ({type(error).__name__}: {error})") from error


class _Reading:
    def __init__(self, shards: Sequence[Shard]) -> None:
        self.left = [shard.size for shard in shards]  # bytes that nothing has claimed yet

    def layout(self, tree: dict[str, Any]) -> Layout:
        described: dict[str, Any] = {}
        parts: dict[MetadataIndex, tuple[Part, ...]] = {}
        for name, entry in tree["arrays"].items():
            described[name] = self._tensor(name, entry, parts)
        values = {name: each["tree"] for name, each in tree["values"].items()}
        if values.keys() & described.keys():
            raise InvalidInput(f"{sorted(values.keys() & described.keys())[0]} is both a tensor and a value")
        arrays = {
            name: {key: self._held(f"{name}: {key}", held) for key, held in each["arrays"].items()}
            for name, each in tree["values"].items()
        }
        described |= {name: BytesStorageMetadata() for name in values}
        planner = unflatten(tree["planner"], _no_array)
        return Layout(Metadata(described, planner_data=_checked_paths(planner)), parts, values, arrays)

    def _tensor(self, name: str, entry: Any, parts: dict[MetadataIndex, tuple[Part, ...]]) -> TensorStorageMetadata:
        dtype, shape = dtype_of(entry["dtype"]), numbers(entry["shape"], name)
        boxes: list[Box] = []
        for chunk in entry["chunks"]:
            box = Box(numbers(chunk["offsets"], name), numbers(chunk["sizes"], name))
            index = MetadataIndex(name, box.offsets)
            if index in parts:
                raise InvalidInput(f"{name}: two chunks begin at {box.offsets}")
            parts[index] = self._parts(name, chunk["at"], box.volume * dtype.itemsize)
            boxes.append(box)
        check_tiling(name, shape, boxes)
        chunks = [ChunkStorageMetadata(torch.Size(box.offsets), torch.Size(box.sizes)) for box in boxes]
        return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), chunks)

    def _held(self, name: str, entry: Any) -> Held:
        shape = numbers(entry["shape"], name)
        width = 1 if entry["dtype"] == "bytes" else dtype_of(entry["dtype"]).itemsize
        return Held(entry["dtype"], shape, self._parts(name, entry["at"], prod(shape) * width))

    def _parts(self, name: str, at: Any, size: int) -> tuple[Part, ...]:
        parts, start = [], 0
        for shard, entry, length in at:
            if type(shard) is not int or not 0 <= shard < len(self.left) or type(entry) is not str:
                raise InvalidInput(f"{name} is placed in a shard that there is not")
            if type(length) is not int or not 0 <= length <= self.left[shard]:
                raise InvalidInput(f"{name} takes more bytes of a shard than it has")
            self.left[shard] -= length
            parts.append(Part(shard, entry, start, length))
            start += length
        if start != size:
            raise InvalidInput(f"{name} has {start} bytes, and its shape and type make {size}")
        return tuple(parts)


def _checked_paths(planner: Any) -> Any:
    # A list index in a path makes a planner that rebuilds lists grow them to it.
    if not isinstance(planner, dict):
        return planner
    for name, path in planner.items():
        if not isinstance(path, tuple):
            continue
        if any(type(step) is int and not 0 <= step < len(planner) for step in path):
            raise InvalidInput(f"{str(name)[:80]} stands at a place in a list that cannot be")
    return planner


def _no_array(name: str) -> Any:
    raise InvalidInput(f"the planner's data refers to an array, {str(name)[:80]}")
