"""A distributed state's layout as JSON in a manifest: which chunk of which tensor is in which shard.

What torch.distributed.checkpoint calls `Metadata`, without its pickle: read with suspicion, because a chunk
outside its tensor, one that overlaps another or a size that does not fit would put wrong bytes into a model.
"""

from __future__ import annotations

from bisect import insort
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
from trainer_shim.tree import unflatten

KIND = "dcp"  # of the manifest's tree
MOST = 2**62  # bytes of a tensor: beyond it arithmetic in torch overflows


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
            "dtype": _name(each.properties.dtype),
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
        dtype, shape = dtype_of(entry["dtype"]), _numbers(entry["shape"], name)
        chunks = []
        for chunk in entry["chunks"]:
            offsets, sizes = _numbers(chunk["offsets"], name), _numbers(chunk["sizes"], name)
            if len(offsets) != len(shape) or len(sizes) != len(shape):
                raise InvalidInput(f"{name}: a chunk has another number of dimensions than its tensor")
            if any(o + s > whole for o, s, whole in zip(offsets, sizes, shape, strict=True)):
                raise InvalidInput(f"{name}: a chunk at {offsets} of {sizes} lies outside its tensor {shape}")
            index = MetadataIndex(name, offsets)
            if index in parts:
                raise InvalidInput(f"{name}: two chunks begin at {offsets}")
            parts[index] = self._parts(name, chunk["at"], prod(sizes) * dtype.itemsize)
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        _check_tiling(name, shape, chunks)
        return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), chunks)

    def _held(self, name: str, entry: Any) -> Held:
        shape = _numbers(entry["shape"], name)
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


def dtype_of(name: Any) -> torch.dtype:
    """Torch's type of this name.

    Raises:
        InvalidInput: there is none.
    """
    found = getattr(torch, name, None) if type(name) is str else None
    if not isinstance(found, torch.dtype):
        raise InvalidInput(f"this version of torch has no type {name!r}")
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbers(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(each) is not int or not 0 <= each < MOST for each in value):
        raise InvalidInput(f"{name} has a size or an offset that is none: {str(value)[:80]}")
    if prod(max(each, 1) for each in value) >= MOST:
        raise InvalidInput(f"{name} would be larger than any tensor: {str(value)[:80]}")
    return tuple(value)


def _check_tiling(name: str, shape: tuple[int, ...], chunks: list[ChunkStorageMetadata]) -> None:
    filled = [chunk for chunk in chunks if prod(chunk.sizes)]
    if sum(prod(chunk.sizes) for chunk in filled) != prod(shape):
        raise InvalidInput(f"{name}: its chunks do not fill its shape {shape}")
    if not shape:
        return
    sweep = max(range(len(shape)), key=lambda axis: len({chunk.offsets[axis] for chunk in filled}))
    order = sorted(range(len(filled)), key=lambda i: filled[i].offsets[sweep])
    open_: list[tuple[int, int]] = []  # end on the sweep's axis, chunk
    for number in order:
        chunk = filled[number]
        begin = chunk.offsets[sweep]
        while open_ and open_[0][0] <= begin:
            open_.pop(0)
        if any(_overlap(chunk, filled[other]) for _, other in open_):
            raise InvalidInput(f"{name}: chunks overlap at {tuple(chunk.offsets)}")
        insort(open_, (begin + chunk.sizes[sweep], number))


def _overlap(a: ChunkStorageMetadata, b: ChunkStorageMetadata) -> bool:
    return all(
        x < y + height and y < x + width
        for x, width, y, height in zip(a.offsets, a.sizes, b.offsets, b.sizes, strict=True)
    )


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
