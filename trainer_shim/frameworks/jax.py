"""JAX: a training state that is a tree of arrays, made anew by every step.

Nothing here keeps an array beyond a snapshot: what a step was given may be donated to the next one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy

from spotrelay.core.errors import InvalidInput
from spotrelay.core.ports import Body
from trainer_shim.frameworks import feeding, jax_arrays, randomness
from trainer_shim.frameworks.extra import Extra
from trainer_shim.frameworks.jax_arrays import Stored
from trainer_shim.shards import Plan
from trainer_shim.staging import Pin
from trainer_shim.tree import BYTES, Array, Leaf

MOST_BRANCHES = 16  # of a state, that get shards of their own
OURS = ("extra", "random", "data", "step")  # of a captured state, apart from the trees
LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "optax")


class JaxFramework:
    """One tree of arrays, which the script hands over again after each step."""

    ready = True
    rolls_back = False  # a script that has taken a state out of `run.state` would go on with it

    def __init__(self, state: Any, extra: Any) -> None:
        self.extra = Extra(extra)
        self._state = state
        self._structure = jax.tree.structure(state)
        self._branches: set[str] | None = None
        self._watched: frozenset[str] | None = None  # arrays that were finite when the attempt began

    @property
    def state(self) -> Any:
        """See `trainer_shim.framework.Framework.state`."""
        return self._state

    def renew(self, state: Any) -> None:
        """See `trainer_shim.framework.Framework.renew`."""
        if state is None:
            raise InvalidInput("run.step(loss) was called without the new state: call run.step(loss, state=state)")
        structure = jax.tree.structure(state)
        if structure != self._structure:
            raise InvalidInput(
                "run.step() was given a state of another structure than attach(), so that no resume could fill it: "
                f"{str(structure)[:300]} instead of {str(self._structure)[:300]}"
            )
        self._state = state

    @property
    def versions(self) -> dict[str, str]:
        """See `trainer_shim.framework.Framework.versions`."""
        loaded = {name: sys.modules[name] for name in LIBRARIES if name in sys.modules}
        return {**{name: str(each.__version__) for name, each in loaded.items()}, "backend": jax.default_backend()}

    @property
    def threads(self) -> int:
        """As many as XLA may use on this machine's processors."""
        return len(os.sched_getaffinity(0))

    def capture(self) -> dict[str, Any]:
        """See `trainer_shim.framework.Framework.capture`."""
        trees = {group: dict(_leaves(tree)) for group, tree in self._trees().items()}
        if self._watched is None:
            self._watched = frozenset(_finite_now(trees, self._unwatched()))
        return {**trees, "extra": self.extra.capture(), "random": _process_state()}

    def describe(self, value: Any, path: str) -> Array | None:
        """See `trainer_shim.framework.Framework.describe`."""
        found = jax_arrays.describe(value, path)
        return None if found is None else found._replace(group=self._group(path))

    @property
    def pin(self) -> Pin | None:
        """JAX copies from a device into memory of its own."""
        return None

    @property
    def copiers(self) -> int:
        """See `trainer_shim.framework.Framework.copiers`."""
        return 1

    def stage(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview) -> None:
        """See `trainer_shim.framework.Framework.stage`; everything has arrived when it returns."""
        for piece in plan.shards[shard].pieces:
            jax_arrays.start_copy(leaves[piece.leaf].value)
        for piece in plan.shards[shard].pieces:
            leaf, target = leaves[piece.leaf], memory[piece.offset : piece.offset + piece.size]
            if leaf.dtype == BYTES:
                target[:] = leaf.value[piece.start : piece.start + piece.size]
            else:
                jax_arrays.copy_bytes(leaf.value, piece.start, target)

    def mark(self, leaves: Sequence[Leaf]) -> None:
        """Nothing of JAX's is copied by another thread."""

    def landed(self) -> None:
        """See `trainer_shim.framework.Framework.landed`."""

    def bodies(self, leaves: Sequence[Leaf], plan: Plan) -> list[Body] | None:
        """See `trainer_shim.framework.Framework.bodies`."""
        here: list[memoryview] = []
        for leaf in leaves:
            data = memoryview(leaf.value) if leaf.dtype == BYTES else jax_arrays.in_place(leaf.value)
            if data is None:
                return None
            here.append(data)
        return [
            [memoryview(shard.header), *(here[p.leaf][p.start : p.start + p.size] for p in shard.pieces if p.size)]
            for shard in plan.shards
        ]

    def not_finite(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview | None) -> tuple[str, ...]:
        """See `trainer_shim.framework.Framework.not_finite`."""
        broken = []
        for piece in plan.shards[shard].pieces:
            leaf = leaves[piece.leaf]
            if leaf.name not in (self._watched or ()):
                continue
            if memory is not None:
                data = memory[piece.offset : piece.offset + piece.size]
            else:
                here = jax_arrays.in_place(leaf.value)
                assert here is not None, "what is sent from where it is can be read there"
                data = here[piece.start : piece.start + piece.size]
            if not jax_arrays.finite(data, leaf.dtype):
                broken.append(leaf.name)
        return tuple(dict.fromkeys(broken))

    def bad_gradients(self) -> str:
        """JAX keeps no gradients: a step tells of them by its norm."""
        return ""

    def keeps_still(self, group: str) -> bool:
        """A step may overwrite what is donated to it at any time."""
        return False

    def guard(self, settle: Callable[[], None]) -> bool:
        """JAX calls nobody before a step."""
        return False

    def stamps(self, leaves: Sequence[Leaf]) -> list[int]:
        """See `trainer_shim.framework.Framework.stamps`."""
        return []

    def array(self, data: memoryview, dtype: str, shape: tuple[int, ...]) -> Any:
        """See `trainer_shim.framework.Framework.array`."""
        return bytes(data) if dtype == BYTES else jax_arrays.stored(data, dtype, shape)

    def stand_in(self, dtype: str, shape: tuple[int, ...]) -> Any:
        """What `misfits` takes for an array that has not been fetched yet; needs no memory."""
        return b"" if dtype == BYTES else jax_arrays.stand_in(dtype, shape)

    def compose(self, kind: str, parts: dict[str, Any]) -> Any:
        """Nothing of JAX's is made up of several arrays."""
        raise InvalidInput(f"no script for JAX has saved a {kind}")

    def copied(self, name: str) -> bool:
        """Every array is copied to where the script's own are."""
        return True

    def misfits(self, state: dict[str, Any]) -> list[str]:
        """See `trainer_shim.framework.Framework.misfits`."""
        trees = self._trees()
        found = [
            f"{group} is in the checkpoint, and was not attached" for group in state if group not in {*trees, *OURS}
        ]
        for group, tree in trees.items():
            found += _misfits(group, state.get(group), dict(_leaves(tree)))
        found += [f"{path} has 64 bits: switch jax_enable_x64 on, as it was" for path in _wide(state, "")]
        return found + self.extra.misfits(state.get("extra"))

    def apply(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply`."""
        made = {group: _filled(tree, state[group]) for group, tree in self._trees().items()}
        self._put(made)
        self.extra.apply(jax_arrays.own(state["extra"]))
        self.apply_randomness(state)

    def apply_randomness(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply_randomness`."""
        _set_process_state(state["random"])

    def feed(
        self,
        loader: Any,
        endless: bool,
        tracked: bool,
        position: dict[str, Any] | None,
        settled: Callable[[], None],
    ) -> feeding.LoaderFeed:
        """See `trainer_shim.framework.Framework.feed`."""
        position = jax_arrays.own(position)
        if feeding.saves_itself(loader) and tracked:
            return feeding.StatefulFeed(loader, endless, position, settled)
        torch = sys.modules.get("torch.utils.data")
        if torch is not None and isinstance(loader, torch.DataLoader):
            from trainer_shim.frameworks import torch_data

            return torch_data.feed(loader, endless, tracked, position, settled)
        return feeding.LoaderFeed(loader, endless, position, settled)

    def loss(self, value: Any, wait: bool) -> float | None:
        """See `trainer_shim.framework.Framework.loss`."""
        if isinstance(value, jax.Array) and not wait and not value.is_ready():
            return None
        if isinstance(value, (jax.Array, numpy.ndarray)):
            return float(value.reshape(())) if value.size == 1 else None
        return None if value is None else float(value)

    def _trees(self) -> dict[str, Any]:
        return {"state": self._state}

    def _put(self, trees: dict[str, Any]) -> None:
        self._state = trees["state"]
        self._structure = jax.tree.structure(self._state)

    def _unwatched(self) -> frozenset[str]:
        return frozenset()

    def _group(self, path: str) -> str:
        """What changes together: one branch of the tree, where it has few."""
        if self._branches is None:
            names = {f"state/{name.partition('/')[0]}" for name, _ in _leaves(self._state)}
            self._branches = names if len(names) <= MOST_BRANCHES else set()
        branch = "/".join(path.split("/")[:2])
        return branch if branch in self._branches else path.partition("/")[0]


def _process_state() -> dict[str, Any]:
    if "torch" not in sys.modules:
        return randomness.process_state()
    from trainer_shim.frameworks import torch_random  # its loaders are common among JAX's users

    return torch_random.process_state()


def _set_process_state(state: dict[str, Any]) -> None:
    if "torch" not in state or "torch" not in sys.modules:
        randomness.set_process_state(state)
        return
    from trainer_shim.frameworks import torch_random

    torch_random.set_process_state(state)


def _leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    """Every leaf of a tree with a name of its own."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") or "value" for path, _ in found]
    if len(set(names)) != len(names):  # a key with a slash in it
        names = [jax.tree_util.keystr(path) for path, _ in found]
    return zip(names, (leaf for _, leaf in found), strict=True)


def _filled(tree: Any, saved: Mapping[str, Any]) -> Any:
    leaves = [
        jax_arrays.loaded(saved[name], leaf) if isinstance(saved[name], Stored) else saved[name]
        for name, leaf in _leaves(tree)
    ]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _finite_now(trees: Mapping[str, Mapping[str, Any]], left_out: frozenset[str]) -> Iterable[str]:
    # What is infinite at the start may be so for good: a mask, the best loss so far. Single numbers come and go.
    for group, leaves in trees.items():
        for name, leaf in leaves.items():
            path = f"{group}/{name}"
            array = jax_arrays.describe(leaf, path)
            if array is None or not array.shape or path in left_out or not jax_arrays.floating(array.dtype):
                continue
            data = bytearray(array.size)
            jax_arrays.copy_bytes(leaf, 0, memoryview(data))
            if jax_arrays.finite(memoryview(data), array.dtype):
                yield path


def _misfits(group: str, saved: Any, live: Mapping[str, Any]) -> list[str]:
    if not isinstance(saved, dict):
        return [f"{group} was attached, and is not in the checkpoint"]
    found = [f"{group}: {name} is in the checkpoint only" for name in saved if name not in live]
    found += [f"{group}: {name} is in the script only" for name in live if name not in saved]
    for name in live:
        if name in saved and (differs := _difference(saved[name], live[name])):
            found.append(f"{group}: {name} is {differs}")
    return found


def _difference(saved: Any, live: Any) -> str:
    there = saved.shape if isinstance(saved, Stored) else ()
    here = numpy.shape(live) if not isinstance(live, jax.Array) else live.shape
    if there != here:
        return f"{there} in the checkpoint, {here} in the script"
    array = jax_arrays.describe(live, "")
    if array is None or not isinstance(saved, Stored):
        return ""  # a number here or there: it becomes what the first step makes of it
    was, now = _plain(saved.dtype), _plain(array.dtype)
    if saved.dtype.startswith(jax_arrays.NUMPY) != array.dtype.startswith(jax_arrays.NUMPY):
        was, now = jax_arrays.narrowed(was), jax_arrays.narrowed(now)  # the first step made one of the other
    return "" if was == now else f"{was} in the checkpoint, {now} in the script"


def _plain(dtype: str) -> str:
    return dtype.removeprefix(jax_arrays.NUMPY).removesuffix(jax_arrays.WEAK)


def _wide(value: Any, path: str) -> list[str]:
    if isinstance(value, Stored):
        return [path] if jax_arrays.wide(value) else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [found for key, item in items for found in _wide(item, f"{path}/{key}".lstrip("/"))]
