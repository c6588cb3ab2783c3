"""Shards: files in safetensors format, planned before anything is copied, read with suspicion.

A shard is eight bytes (length of the header), a JSON header and the raw arrays. An array above the
limit is cut into pieces of whole elements; everything else is packed until a shard is full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from spotrelay.core.errors import Damaged, InvalidInput
from trainer_shim.tree import BYTES, Leaf

LIMIT = 64 * 2**20  # bytes of arrays in one shard, at most
LEAST = 8 * 2**20  # bytes of arrays in one shard, where there is enough to fill it: a request costs time too
SPREAD = 16  # shards that a state is spread over where it can be: one connection carries so much and no more
APART = 64  # a state below LIMIT / APART is not worth shards of its own for each group
LONGEST_HEADER = 100 * 2**20  # bytes; as the format's own reader has it

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
            "at": [[shard, entry] for _, shard, entry in sorted(places[index])],
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
    return WIDTHS[CODES.get(leaf.dtype, "U8")]


def read(body: memoryview, name: str) -> dict[str, memoryview]:
    """The pieces of a shard by entry, as views of its bytes.

    Raises:
        Damaged: the header does not describe exactly these bytes; names the shard.
    """
    try:
        return _read(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"shard {name} is damaged: its header does not describe its bytes ({error})") from error


def _read(body: memoryview) -> dict[str, memoryview]:
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(LONGEST_HEADER, len(body) - 8):
        raise ValueError("the header's length is impossible")
    table = json.loads(bytes(body[8 : 8 + length]))
    data = body[8 + length :]
    table.pop("__metadata__", None)
    entries: dict[str, memoryview] = {}
    expected = 0
    for entry, described in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = described["data_offsets"]
        if begin != expected or end < begin or end > len(data):
            raise ValueError(f"{entry} lies outside, or not where the one before it ends")
        shape = described["shape"]
        if any(type(n) is not int or n < 0 for n in shape) or prod(shape) * WIDTHS[described["dtype"]] != end - begin:
            raise ValueError(f"{entry} has another size than its shape says")
        entries[entry] = data[begin:end]
        expected = end
    if expected != len(data):
        raise ValueError("bytes are left over")
    return entries


def gather(
    name: str, described: Any, shards: Mapping[int, dict[str, memoryview]] | Sequence[dict[str, memoryview]]
) -> memoryview:
    """The bytes of one array of the manifest's table, in one piece.

    Raises:
        InvalidInput: the table points at what the shards do not have.
    """
    try:
        parts = [shards[shard][entry] for shard, entry in described["at"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidInput(f"the manifest places {name} where the shards have nothing") from error
    return parts[0] if len(parts) == 1 else memoryview(bytearray().join(parts))
