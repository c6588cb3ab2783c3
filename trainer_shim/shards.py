"""Shards: files in safetensors format, planned before anything is copied, read with suspicion.

A shard is eight bytes (length of the header), a JSON header and the raw arrays. An array above the
limit is cut into pieces of whole elements; everything else is packed until a shard is full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from spotrelay.core.codec import strict_json
from spotrelay.core.errors import Damaged
from trainer_shim.tree import BYTES, Leaf

LIMIT = 64 * 2**20  # bytes of arrays in one shard, at most
LEAST = 8 * 2**20  # bytes of arrays in one shard, where there is enough to fill it: a request costs time too
SPREAD = 16  # shards that a state is spread over where it can be: one connection carries so much and no more
APART = 64  # a state below LIMIT / APART is not worth shards of its own for each group
LONGEST_HEADER = 100 * 2**20  # bytes; as the format's own reader has it
MOST_DIMENSIONS = 64

CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", BYTES: "U8",
}  # fmt: skip
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A run of bytes of one array, and where it goes."""

    leaf: int  # index of the array in the plan's order
    start: int  # first byte within the array
    size: int  # bytes
    entry: str  # its name in the shard's header
    offset: int  # within the shard


@dataclass(frozen=True)
class Plan:
    """Where every byte of a state goes: which shard, and where in it."""

    shards: tuple[ShardPlan, ...]
    size: int  # bytes in all
    arrays: dict[str, Any]  # for the manifest: by name, what it is and where its pieces are

    @property
    def longest(self) -> int:
        """Bytes of the longest shard."""
        return max(each.end - each.begin for each in self.shards)


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its place in a buffer that holds the whole plan, and what is in it."""

    index: int
    begin: int  # in a buffer that holds everything
    end: int  # exclusive
    header: bytes  # eight bytes of length and the header
    pieces: tuple[Piece, ...]
    groups: frozenset[str]  # of the arrays in it

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self.end - self.begin


def limit_for(total: int, most: int | None = None) -> int:
    """Bytes of arrays in one shard of a state with `total` bytes.

    Args:
        most: bytes that the shards of one save may take in host memory at a time; None for no bound.
    """
    limit = min(LIMIT, max(LEAST, total // SPREAD))
    return limit if most is None else max(min(limit, most // 4), 1)


def plan(leaves: Sequence[Leaf], limit: int | None = None) -> Plan:
    """Pack arrays into shards of at most `limit` bytes of arrays each; groups lie apart."""
    total = sum(leaf.size for leaf in leaves)
    limit = limit_for(total) if limit is None else limit
    together = total < limit / APART
    ranks: dict[str, int] = {}
    for leaf in leaves:
        ranks.setdefault("" if together else leaf.group, len(ranks))
    by_rank = [ranks["" if together else leaf.group] for leaf in leaves]
    order = sorted(range(len(leaves)), key=lambda i: (by_rank[i], -_width(leaves[i]), i))
    shards: list[list[tuple[int, int, int, str]]] = [[]]
    filled, rank = 0, None
    for index in order:
        for start, size, entry in _cut(leaves[index], limit):
            if shards[-1] and (filled + size > limit or by_rank[index] != rank):
                shards.append([])
                filled = 0
            shards[-1].append((index, start, size, entry))
            filled, rank = filled + size, by_rank[index]
    return _laid_out(leaves, shards)


def _laid_out(leaves: Sequence[Leaf], groups: list[list[tuple[int, int, int, str]]]) -> Plan:
    planned: list[ShardPlan] = []
    places: dict[int, list[tuple[int, int, str]]] = {index: [] for index in range(len(leaves))}
    cursor = 0
    for shard, group in enumerate(groups):
        begin = cursor
        header = _header([(leaves[index], size, entry) for index, _, size, entry in group])
        cursor += len(header)
        pieces = []
        for index, start, size, entry in group:
            pieces.append(Piece(index, start, size, entry, cursor - begin))
            places[index].append((start, shard, entry))
            cursor += size
        held = frozenset(leaves[index].group for index, *_ in group)
        planned.append(ShardPlan(shard, begin, cursor, header, tuple(pieces), held))
        cursor = -(-cursor // 4096) * 4096
    arrays = {
        leaf.name: {
            "dtype": leaf.dtype,
            "shape": list(leaf.shape),
            "size": leaf.size,
            "at": [[shard, entry, start] for start, shard, entry in sorted(places[index])],
        }
        for index, leaf in enumerate(leaves)
    }
    return Plan(tuple(planned), max(cursor, 1), arrays)


def _cut(leaf: Leaf, limit: int) -> Iterable[tuple[int, int, str]]:
    if leaf.size <= limit:
        yield 0, leaf.size, leaf.name
        return
    step = max(limit // 16, 1) * 16 if limit >= 16 else limit
    for number, start in enumerate(range(0, leaf.size, step)):
        yield start, min(step, leaf.size - start), f"{leaf.name}#{number:05d}"


def _header(entries: list[tuple[Leaf, int, str]]) -> bytes:
    table: dict[str, Any] = {}
    offset = 0
    for leaf, size, entry in entries:
        code = CODES.get(leaf.dtype, "U8")
        whole = size == leaf.size and leaf.dtype in CODES
        shape = list(leaf.shape) if whole else [size // WIDTHS[code]]
        table[entry] = {"dtype": code, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return len(text).to_bytes(8, "little") + text


def _width(leaf: Leaf) -> int:
    return width(leaf.dtype)


def width(dtype: str) -> int:
    """Bytes of one element: the first number in a type's name counts its bits; at least one byte."""
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def contents(header: bytes | bytearray, size: int) -> dict[str, tuple[int, int]]:
    """Where each entry of a shard is within its arrays, in their order.

    Args:
        header: its JSON text, which nobody has proven yet.
        size: bytes of arrays that follow it.

    Raises:
        ValueError: it does not describe exactly these bytes.
    """
    try:
        return _contents(strict_json(header), size)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the header has a form that no version writes ({error!r})") from error


def whole_shape(shape: Any) -> bool:
    """Whether it is a shape, and one whose product is soon found out."""
    return len(shape) <= MOST_DIMENSIONS and all(type(n) is int and 0 <= n < 2**63 for n in shape)


def _contents(table: Any, size: int) -> dict[str, tuple[int, int]]:
    table.pop("__metadata__", None)
    entries: dict[str, tuple[int, int]] = {}
    expected = 0
    for entry, described in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = described["data_offsets"]
        if type(begin) is not int or type(end) is not int or begin != expected or not begin <= end <= size:
            raise ValueError(f"{entry[:80]} lies outside, or not where the one before it ends")
        shape = described["shape"]
        if not whole_shape(shape) or prod(shape) * WIDTHS[described["dtype"]] != end - begin:
            raise ValueError(f"{entry[:80]} has another size than its shape says")
        entries[entry] = (begin, end)
        expected = end
    if expected != size:
        raise ValueError("bytes are left over")
    return entries


def read(body: memoryview, name: str) -> dict[str, memoryview]:
    """The pieces of a whole shard by entry, as views of its bytes.

    Raises:
        Damaged: its header does not describe exactly these bytes; names the shard.
    """
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(LONGEST_HEADER, len(body) - 8):
        raise Damaged(f"shard {name} is damaged: the header's length is impossible")
    data = body[8 + length :]
    try:
        found = contents(bytes(body[8 : 8 + length]), len(data))
    except ValueError as error:
        raise Damaged(f"shard {name} is damaged: {error}") from error
    return {entry: data[begin:end] for entry, (begin, end) in found.items()}
