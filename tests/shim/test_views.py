"""Which pieces of a checkpoint a rank takes, and pieces that a hostile hand has described."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spotrelay.core.errors import InvalidInput
from trainer_shim.layouts import Box, check_tiling
from trainer_shim.views import View, view

NAME = "models/model/w"
Tree = dict[str, Any]


def saved(ranks: int = 4) -> Tree:
    """Eight rows of three on so many ranks, each with its own shard."""
    rows = 8 // ranks

    def table(rank: int) -> Tree:
        return {NAME: {"dtype": "float32", "shape": [rows, 3], "at": [[rank, NAME]]}}

    def own(rank: int) -> Tree:
        return {"models": {}, "random": rank, "sharded": {NAME: {"shape": [8, 3], "offsets": [rank * rows, 0]}}}

    state = {**own(0), "models": {"model": {"w": {"$": "array", "name": NAME}}}}
    others = [{"arrays": table(rank), "state": own(rank)} for rank in range(1, ranks)]
    return {"arrays": table(0), "state": state, "ranks": [{}, *others]}


def shards_of(found: View) -> tuple[int, ...]:
    """Numbers of those that have to be read."""
    return tuple(sorted({shard for each in found.arrays.values() for shard, *_ in each["at"]}))


@pytest.mark.parametrize(
    ("rank", "want", "shards"),
    [(0, Box((0, 0), (2, 3)), (0,)), (0, Box((1, 0), (2, 3)), (0, 1)), (1, Box((4, 0), (4, 3)), (2, 3))],
    ids=["its own", "parts of two", "two whole ones"],
)
def test_only_what_is_needed_is_read(rank: int, want: Box, shards: tuple[int, ...]) -> None:
    found = view(saved(), rank, lambda name, shape: want)

    assert shards_of(found) == shards
    assert found.state["models"]["model"]["w"] == {"sharded": NAME}
    assert [tuple(each["offsets"]) for each in found.state["sharded"][NAME]["chunks"]] == [
        (2 * shard, 0) for shard in shards
    ]


def test_a_process_by_itself_reads_all_of_it() -> None:
    assert shards_of(view(saved(), 0)) == (0, 1, 2, 3)


def test_a_rank_whose_piece_is_empty_reads_nothing() -> None:
    assert shards_of(view(saved(), 3, lambda name, shape: Box((8, 0), (0, 3)))) == ()


def test_a_piece_that_several_ranks_have_is_taken_once() -> None:
    tree = saved(2)
    tree["ranks"] += [{"arrays": tree["arrays"], "state": {**tree["state"], "models": {}}}]

    assert shards_of(view(tree, 0)) == (0, 1)


def test_a_second_name_for_the_same_pieces_needs_no_array_of_its_own() -> None:
    tied = "models/model/tied"
    tree = saved()
    tree["state"]["models"]["model"]["tied"] = {"$": "array", "name": NAME}
    for state in (tree["state"], *(each["state"] for each in tree["ranks"][1:])):
        state["sharded"][tied] = state["sharded"][NAME]

    found = view(tree, 0)

    assert found.state["models"]["model"] == {"w": {"sharded": NAME}, "tied": {"sharded": NAME}}
    assert set(found.state["sharded"]) == {NAME}


@pytest.mark.parametrize("rank", [0, 1])
def test_an_array_whose_first_piece_is_missing_is_refused_by_every_rank(rank: int) -> None:
    tree = saved()
    tree["arrays"] = {}

    with pytest.raises(KeyError):
        view(tree, rank)


HOSTILE: dict[str, Callable[[Tree], Any]] = {
    "overlap": lambda tree: tree["ranks"][1]["state"]["sharded"][NAME].update(offsets=[1, 0]),
    "outside": lambda tree: tree["ranks"][3]["state"]["sharded"][NAME].update(offsets=[7, 0]),
    "not fill": lambda tree: tree["ranks"].pop(),
    "none": lambda tree: tree["ranks"][1]["state"]["sharded"][NAME].update(offsets=[-2, 0]),
    "larger than": lambda tree: tree["state"]["sharded"][NAME].update(shape=[2**40, 2**40]),
    "one shape": lambda tree: tree["ranks"][2]["state"]["sharded"][NAME].update(shape=[9, 3]),
    "dimensions": lambda tree: tree["ranks"][1]["state"]["sharded"][NAME].update(offsets=[2]),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_pieces_that_make_no_whole_are_refused(said: str) -> None:
    tree = saved()
    HOSTILE[said](tree)

    with pytest.raises(InvalidInput, match=said):
        view(tree, 0)


def test_boxes_of_a_grid_are_accepted_and_their_overlap_is_not() -> None:
    grid = [Box((row, column), (2, 3)) for row in (0, 2) for column in (0, 3)]
    check_tiling("w", (4, 6), grid)

    with pytest.raises(InvalidInput, match="overlap"):
        check_tiling("w", (4, 6), [*grid[:3], Box((1, 3), (2, 3))])
