"""State as JSON and arrays, arrays as shards; and back, whatever a hostile file says."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotrelay.core.errors import InvalidInput
from trainer_shim.shards import CODES, contents, plan
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


def parts(body: memoryview) -> dict[str, memoryview]:
    """A shard's arrays by their entries, as any reader of the format finds them."""
    length = int.from_bytes(body[:8], "little")
    data = body[8 + length :]
    found = contents(bytes(body[8 : 8 + length]), len(data))
    return {entry: data[begin:end] for entry, (begin, end) in found.items()}


def gathered(described: Any, shards: list[dict[str, memoryview]]) -> bytes:
    """An array of the manifest's table."""
    return b"".join(shards[shard][entry] for shard, entry, _ in described["at"])


@given(st.lists(st.binary(max_size=300), max_size=12), st.integers(16, 400))
def test_arrays_of_any_size_come_back_from_shards_of_any_limit(arrays: list[bytes], limit: int) -> None:
    leaves = [leaf(f"a{n}", data) for n, data in enumerate(arrays)]

    made, bodies = staged(leaves, limit)
    entries = [parts(body) for body in bodies]

    for each in leaves:
        assert gathered(made.arrays[each.name], entries) == each.value
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
    assert gathered(made.arrays["x"], [parts(bodies[0])]) == bytes(16)


def test_no_damage_to_a_header_is_read_as_something_else() -> None:
    """The digest finds every flip; the reader itself must at least never leave its bytes."""
    _, [body] = staged([leaf("a", bytes(range(100))), leaf("b", b"x" * 50)], 10_000)
    header = bytes(body[8 : 8 + int.from_bytes(body[:8], "little")])
    source = random.Random(11)
    for _ in range(1000):
        text = bytearray(header)
        for _ in range(source.randint(1, 4)):
            text[source.randrange(len(text))] = source.randrange(256)
        if source.random() < 0.3:
            del text[source.randrange(len(text)) :]
        try:
            entries = contents(text, 150)
        except ValueError:
            continue
        assert [end - begin for begin, end in entries.values()] in ([100, 50], [50, 100])


@pytest.mark.parametrize(
    "table",
    [
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 5]}},
        {"a": {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
         "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [-4, 0]}},
        {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0.0, 4.0]}},
        {"a": {"dtype": "PICKLE", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [True, 4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}},
        {"a": {"dtype": "U8", "shape": [10**4000] * 60 + [0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "U8", "shape": [2] * 100_000, "data_offsets": [0, 4]}},
        [1, 2],
        {"a": 3},
        {"a": None},
        None,
        "text",
        7,
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(table: Any) -> None:
    with pytest.raises(ValueError):
        contents(json.dumps(table).encode(), 4)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x80\x04\x95",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [' + b"9" * 1_000_000 + b'], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "a": {}}',
        b"\xff\xfe{}",
    ],
    ids=["empty", "a pickle", "deep lists", "deep objects", "NaN", "a huge number", "a key twice", "no text"],
)
def test_a_text_that_is_no_plain_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        contents(text, 4)


def test_numbers_that_are_not_finite_survive() -> None:
    tree, _ = flatten({"best": math.inf, "worst": math.nan}, no_arrays)

    back = unflatten(json.loads(json.dumps(tree, allow_nan=False)), NOTHING.__getitem__)

    assert back["best"] == math.inf
    assert math.isnan(back["worst"])
