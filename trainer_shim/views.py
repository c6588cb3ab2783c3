"""What one rank takes out of a checkpoint, whoever saved it: the common state and its own part.

A checkpoint of several ranks is also a whole one of a single process: rank 0's. What the others have for
themselves stands beside it, under `ranks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class View:
    """A part of a manifest's tree, complete for one rank."""

    arrays: dict[str, Any]  # the table, only of what this rank needs
    state: Any  # the tree
    shards: tuple[int, ...]  # numbers of those that it has to read


def view(tree: dict[str, Any], rank: int) -> View:
    """Rank `rank`'s part. One that the checkpoint does not know gets rank 0's, without its random generators.

    Raises:
        KeyError, TypeError, AttributeError: the tree is none that this format has.
    """
    table, state = tree["arrays"], tree["state"]
    ranks = tree.get("ranks") or [{}]
    if 0 < rank < len(ranks):
        table, state = {**table, **ranks[rank]["arrays"]}, _over(ranks[rank]["state"], state)
    elif rank:
        state = {**state, "random": None}
    arrays = {name: table[name] for name in sorted(_named(state))}
    shards = tuple(sorted({shard for each in arrays.values() for shard, _ in each["at"]}))
    return View(arrays, state, shards)


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
