"""Flax NNX: modules and optimizers that change in place, so that a step hands nothing over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.jax import JaxFramework

SAVED = nnx.Not(nnx.Intermediate)  # what a forward pass leaves behind for its caller is no state


class NnxFramework(JaxFramework):
    """One or several NNX objects and their optimizers."""

    def __init__(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> None:
        super().__init__(None, extra)
        for name, given in {"scheduler": scheduler, "scaler": scaler}.items():
            if given is not None:
                raise InvalidInput(f"attach({name}=...) is for torch: what optax keeps of it is in the optimizer")
        self.objects = {**_named("model", model), **_named("optimizer", optimizer)}

    def renew(self, state: Any) -> None:
        """See `trainer_shim.framework.Framework.renew`."""
        if state is not None:
            raise InvalidInput("run.step(state=...) is for attach(state=...): NNX objects change in place")

    def _trees(self) -> dict[str, Any]:
        return {name: nnx.state(each, SAVED) for name, each in self.objects.items()}

    def _put(self, trees: dict[str, Any]) -> None:
        for name, tree in trees.items():
            nnx.update(self.objects[name], tree)

    def _unwatched(self) -> frozenset[str]:
        # Running statistics and caches are the model's own business.
        return frozenset(
            f"{group}/{'/'.join(str(part) for part in path)}/value"
            for group, each in self.objects.items()
            if not isinstance(each, nnx.Optimizer)
            for path, variable in nnx.to_flat_state(nnx.state(each, SAVED))
            if not isinstance(variable, nnx.Param)
        )


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
