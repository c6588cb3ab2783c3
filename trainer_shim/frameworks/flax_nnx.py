"""Flax NNX: modules and optimizers that change in place, so that a step hands nothing over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.jax import JaxFramework

TRAINED, FROZEN, BUFFERS = "trained", "frozen", "buffers"
SAVED = nnx.Not(nnx.Intermediate)  # what a forward pass leaves behind for its caller is no state


class NnxFramework(JaxFramework):
    """One or several NNX objects and their optimizers."""

    def __init__(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> None:
        super().__init__(None, extra)
        for name, given in {"scheduler": scheduler, "scaler": scaler}.items():
            if given is not None:
                raise InvalidInput(f"attach({name}=...) is for torch: what optax keeps of it is in the optimizer")
        self.objects = {**_named("model", model), **_named("optimizer", optimizer)}
        self._kinds = _kinds(self.objects)

    def renew(self, state: Any) -> None:
        """See `trainer_shim.framework.Framework.renew`."""
        if state is not None:
            raise InvalidInput("run.step(state=...) is for attach(state=...): NNX objects change in place")

    def _trees(self) -> dict[str, Any]:
        return {name: nnx.state(each, SAVED) for name, each in self.objects.items()}

    def _put(self, trees: dict[str, Any]) -> None:
        for name, tree in trees.items():
            nnx.update(self.objects[name], tree)

    def _group(self, path: str) -> str:
        """Parameters that an optimizer changes lie apart from frozen ones, and both from the rest."""
        return self._kinds.get(path) or path.partition("/")[0]

    def _unwatched(self) -> frozenset[str]:
        return frozenset(path for path, kind in self._kinds.items() if kind == BUFFERS)


def _kinds(objects: Mapping[str, Any]) -> dict[str, str]:
    """What each variable of the modules is, by its path."""
    optimizers = [each for each in objects.values() if isinstance(each, nnx.Optimizer)]
    trains = [nnx.filterlib.to_predicate(getattr(each, "wrt", nnx.Param)) for each in optimizers]
    found = {}
    for group, each in objects.items():
        if isinstance(each, nnx.Optimizer):
            continue
        for path, variable in nnx.to_flat_state(nnx.state(each, SAVED)):
            trained = not trains or any(predicate(path, variable) for predicate in trains)
            kind = BUFFERS if not isinstance(variable, nnx.Param) else TRAINED if trained else FROZEN
            found[f"{group}/{'/'.join(str(part) for part in path)}/value"] = kind
    return found


def are_objects(values: Any) -> bool:
    """Whether these are NNX objects, each of them."""
    return all(isinstance(each, nnx.Pytree) and not isinstance(each, jax.Array) for each in values)


def _named(kind: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {f"{kind}.{key}": value for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return {f"{kind}.{index}": value for index, value in enumerate(given)}
    return {kind: given}
