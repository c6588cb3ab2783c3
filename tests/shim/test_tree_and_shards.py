"""State as JSON and arrays, arrays as shards; and back, whatever a hostile file says."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.errors import Damaged, InvalidInput
from trainer_shim.shards import CODES, gather, plan, read
from trainer_shim.tree import BYTES, Array, Leaf, flatten, unflatten

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=600))
keys = st.one_of(st.text(max_size=5), st.integers(), st.tuples(st.integers(), st.text(max_size=2)))
states = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


NOTHING: dict[str, Any] = {}


def no_arrays(value: Any, path: str) -> Array | None:
    return None


@given(states)
def test_every_state_comes_back_as_it_was_through_real_json(state: Any) -> None:
    tree, leaves = flatten({"state": state}, no_arrays)
    text = json.dumps(tree, allow_nan=False)
    values = {leaf.name: leaf.value for leaf in leaves}

    back = unflatten(json.loads(text), values.__getitem__)["state"]

    assert repr(back) == repr(state)


def test_a_value_that_no_checkpoint_can_hold_is_named_with_its_path() -> None:
    with pytest.raises(InvalidInput, match=r"extra/things/1 is a builtins\.set"):
        flatten({"extra": {"things": [1, {2}]}}, no_arrays)


@pytest.mark.parametrize("tree", [{"$": "pickle", "value": "x"}, {"$": "dict", "items": 3}, {"$": "array"}, {"$": []}])
def test_a_tree_that_nobody_wrote_is_refused(tree: Any) -> None:
    with pytest.raises(InvalidInput):
        unflatten(tree, NOTHING.__getitem__)


def leaf(name: str, data: bytes, dtype: str = "uint8") -> Leaf:
    return Leaf(name, dtype, (len(data),), len(data), data)


def staged(leaves: list[Leaf], limit: int) -> tuple[Any, list[memoryview]]:
    """Fill a buffer as a framework would; the plan and each shard's bytes."""
    made = plan(leaves, limit)
    bodies = []
    for shard in made.shards:
        body = bytearray(shard.size)
        body[: len(shard.header)] = shard.header
        for piece in shard.pieces:
            body[piece.offset : piece.offset + piece.size] = leaves[piece.leaf].value[
                piece.start : piece.start + piece.size
            ]
        bodies.append(memoryview(bytes(body)))
    return made, bodies


@given(st.lists(st.binary(max_size=300), max_size=12), st.integers(16, 400))
def test_arrays_of_any_size_come_back_from_shards_of_any_limit(arrays: list[bytes], limit: int) -> None:
    leaves = [leaf(f"a{n}", data) for n, data in enumerate(arrays)]

    made, bodies = staged(leaves, limit)
    entries = [read(body, "shard") for body in bodies]

    for each in leaves:
        assert bytes(gather(each.name, made.arrays[each.name], entries)) == each.value
    data = [sum(len(view) for view in shard.values()) for shard in entries]
    assert all(size <= limit for size in data)


def test_fifty_thousand_small_arrays_need_few_requests() -> None:
    leaves = [leaf(f"layer.{n}.weight", b"12345678") for n in range(50_000)]

    assert len(plan(leaves).shards) == 1


def test_wide_types_stay_aligned() -> None:
    leaves = [leaf("odd", b"123"), Leaf("wide", "float64", (2,), 16, bytes(16)), leaf("odder", b"1")]

    made = plan(leaves)

    wide = next(piece for shard in made.shards for piece in shard.pieces if leaves[piece.leaf].name == "wide")
    assert wide.offset % 8 == 0


def test_every_named_type_is_one_of_the_formats() -> None:
    assert CODES[BYTES] == "U8"
    made, bodies = staged([Leaf("x", "complex128", (1,), 16, bytes(16))], 1000)
    assert bytes(gather("x", made.arrays["x"], [read(bodies[0], "s")])) == bytes(16)


def test_no_damage_to_a_shard_is_read_as_something_else() -> None:
    """The digest finds every flip; the reader itself must at least never leave its bytes."""
    _, [body] = staged([leaf("a", bytes(range(100))), leaf("b", b"x" * 50)], 10_000)
    source = random.Random(11)
    for _ in range(1000):
        data = bytearray(body)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        if source.random() < 0.3:
            del data[source.randrange(len(data)) :]
        try:
            entries = read(memoryview(bytes(data)), "shard")
        except Damaged:
            continue
        assert sum(len(view) for view in entries.values()) <= len(data)


@pytest.mark.parametrize(
    "table",
    [
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 5]}},
        {"a": {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
         "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}},
        {"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [True, 4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}},
        [1, 2],
        {"a": 3},
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(table: Any) -> None:
    text = json.dumps(table).encode()

    with pytest.raises(Damaged, match="hostile"):
        read(memoryview(len(text).to_bytes(8, "little") + text + b"1234"), "hostile")


@pytest.mark.parametrize("body", [b"", b"\x00" * 7, b"\xff" * 8, b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_an_impossible_length_is_refused_without_reading_on(body: bytes) -> None:
    with pytest.raises(Damaged):
        read(memoryview(body), "short")


def test_a_table_that_points_beyond_the_shards_is_refused() -> None:
    with pytest.raises(InvalidInput):
        gather("a", {"at": [[3, "a"]]}, [])


def test_numbers_that_are_not_finite_survive() -> None:
    tree, _ = flatten({"best": math.inf, "worst": math.nan}, no_arrays)

    back = unflatten(json.loads(json.dumps(tree, allow_nan=False)), NOTHING.__getitem__)

    assert back["best"] == math.inf
    assert math.isnan(back["worst"])
