"""What one rank takes out of a checkpoint, whoever saved it: the common state and its own part.

A checkpoint of several ranks is also a whole one of a single process: rank 0's. What the others have for
themselves stands beside it, under `ranks`. Of an array that lies in pieces on the ranks, everyone takes those
pieces that it needs, whoever saved them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spotrelay.core.errors import InvalidInput
from trainer_shim.layouts import Box, check_tiling, numbers

Wanted = Callable[[str, tuple[int, ...]], Box | None]  # by name and shape: which part is needed; None for all


@dataclass(frozen=True)
class View:
    """A part of a manifest's tree, complete for one rank."""

    arrays: dict[str, Any]  # the table, only of what this rank needs
    state: Any  # the tree


def everything(name: str, shape: tuple[int, ...]) -> Box | None:
    """The `Wanted` of a process that holds its arrays whole."""
    return None


def view(tree: dict[str, Any], rank: int, wanted: Wanted = everything) -> View:
    """Rank `rank`'s part. One that the checkpoint does not know gets rank 0's, without its random generators.

    Raises:
        KeyError, TypeError, AttributeError: the tree is none that this format has.
        InvalidInput: pieces of an array do not make a whole.
    """
    table, state = tree["arrays"], tree["state"]
    ranks = tree.get("ranks") or [{}]
    if 0 < rank < len(ranks):
        table, state = {**table, **ranks[rank]["arrays"]}, _over(ranks[rank]["state"], state)
    elif rank:
        state = {**state, "random": None}
    if tree["state"].get("sharded"):
        table, state = _gathered(tree, table, state, wanted)
    if not isinstance(table, dict) or not isinstance(state, dict):
        raise TypeError("no table of arrays, or no state")
    apart = "ranks" in tree or "sharded" in tree["state"]
    arrays = {name: table[name] for name in sorted(_named(state))} if apart else table
    return View(arrays, state)


def _gathered(tree: dict[str, Any], table: dict[str, Any], state: Any, wanted: Wanted) -> tuple[dict[str, Any], Any]:
    """Arrays in pieces, each piece under a name of its own, and the pieces that are wanted in the tree."""
    others = (tree.get("ranks") or [{}])[1:]
    tables = [tree["arrays"], *(each["arrays"] for each in others)]
    layouts = [tree["state"]["sharded"], *(each["state"]["sharded"] for each in others)]
    pieces = dict(table)
    sharded = {}
    for name in layouts[0]:
        if name not in tables[0]:  # another name for pieces that stand there already: nothing in the tree bears it
            pieces.pop(name, None)
            continue
        chunks = {}
        shape = numbers(layouts[0][name]["shape"], name)
        for rank, (layout, arrays) in enumerate(zip(layouts, tables, strict=True)):
            about = (numbers(layout[name]["shape"], name), arrays[name]["dtype"])
            if about != (shape, tables[0][name]["dtype"]):
                raise InvalidInput(f"{name} has one shape and type on rank 0, and another on rank {rank}")
            box = Box(numbers(layout[name]["offsets"], name), numbers(arrays[name]["shape"], name))
            if box not in chunks:  # a mesh may have the same piece on several ranks
                chunks[box] = f"{name}@{rank}"
                pieces[chunks[box]] = arrays[name]
        check_tiling(name, shape, list(chunks))
        want = wanted(name, shape)
        needed = [(box, entry) for box, entry in chunks.items() if want is None or want.overlap(box)]
        sharded[name] = {
            "dtype": tables[0][name]["dtype"],
            "shape": list(shape),
            "chunks": [{"offsets": list(box.offsets), "array": {"$": "array", "name": entry}} for box, entry in needed],
        }
    return pieces, {**_marked(state, frozenset(sharded)), "sharded": sharded}


def _marked(state: Any, sharded: frozenset[str]) -> Any:
    if isinstance(state, list):
        return [_marked(each, sharded) for each in state]
    if not isinstance(state, dict):
        return state
    if state.get("$") == "array" and state["name"] in sharded:
        return {"sharded": state["name"]}
    return {key: _marked(each, sharded) for key, each in state.items()}


def _over(own: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    models = {name: {**each, **own["models"].get(name, {})} for name, each in common["models"].items()}
    return {**common, **own, "models": models}


def _named(state: Any) -> set[str]:
    if isinstance(state, list):
        return set().union(*(_named(each) for each in state))
    if not isinstance(state, dict):
        return set()
    if state.get("$") == "array":
        return {state["name"]}
    return set().union(*(_named(each) for each in state.values()))
