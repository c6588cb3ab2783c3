"""State under FSDP2: each rank saves its pieces of the tensors as they lie, and takes up what its own layout needs.

Only where torch.distributed.tensor is loaded already can there be a DTensor, so that nobody else waits for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.torch_fitting import COMPILED
from trainer_shim.layouts import Box, whole

Chunks = list[tuple[tuple[int, ...], torch.Tensor]]  # offsets in the whole, and what is there


def is_sharded(value: Any) -> bool:
    """Whether it is a tensor in pieces, or with a copy on each rank of a mesh."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


class Sharded:
    """The models and optimizers that one script attached, as far as this rank holds pieces of them."""

    def __init__(self, models: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        self._models = models
        self._others = others
        self._places: dict[str, Any] = {}
        self.names: frozenset[str] = frozenset()  # of arrays that are in pieces, as the newest capture has them

    def taken_apart(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state with this rank's pieces in place of tensors, and beside them where in the whole they lie.

        Raises:
            InvalidInput: a tensor has a reduction pending; names it.
        """
        table: dict[str, Any] = {}
        seen: set[Hashable] = set()
        apart = {
            kind: _mapped(state[kind], kind, lambda value, path: _piece(value, path, table, seen)) for kind in KINDS
        }
        self.names = frozenset(table)
        return {**state, **apart, **({"sharded": table} if table else {})}

    def wanted(self, name: str, shape: tuple[int, ...]) -> Box | None:
        """Which part of a saved array this rank needs; None for all of it."""
        here = self._live(name.rstrip("~"))
        return _box(here) if is_sharded(here) and tuple(here.shape) == shape else None

    def put_together(self, state: dict[str, Any]) -> dict[str, Any]:
        """A restored state with tensors like those that are attached; what does not fit keeps its own shape."""
        table = state.get("sharded") or {}
        if not table and not any(is_sharded(each) for each in self._all_live()):
            return state

        def joined(value: Any, path: str) -> Any:
            here = self._live(path)
            if isinstance(value, dict):
                if value.keys() != {"sharded"} or value["sharded"] not in table:
                    return value
                entry = table[value["sharded"]]
                chunks = [(tuple(each["offsets"]), each["array"]) for each in entry["chunks"]]
                return _joined(tuple(entry["shape"]), getattr(torch, entry["dtype"]), chunks, here)
            if is_sharded(here) and isinstance(value, torch.Tensor) and value.shape == here.shape:
                return _joined(tuple(value.shape), value.dtype, [((0,) * value.dim(), value)], here)
            return value

        return {**state, **{kind: _mapped(state[kind], kind, joined) for kind in KINDS}}

    def _all_live(self) -> Iterable[Any]:
        if not self._places:
            self._places = dict(self._places_now())
        return self._places.values()

    def _live(self, path: str) -> Any:
        """What this path stands for in the script: a tensor of a model, or the parameter of a moment."""
        self._all_live()
        return self._places.get(path if path.startswith("models/") else path.rpartition("/")[0])

    def _places_now(self) -> Iterator[tuple[str, Any]]:
        for name, model in self._models.items():
            named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
            for key, value in named:
                yield f"models/{name}/{key.replace(COMPILED, '')}", value
        for name, each in self._others.items():
            if isinstance(each, torch.optim.Optimizer):
                parameters = [p for group in each.param_groups for p in group["params"]]
                for index, parameter in enumerate(parameters):
                    yield f"others/{name}/state/{index}", parameter


KINDS = ("models", "others")


def _mapped(value: Any, path: str, change: Callable[[Any, str], Any]) -> Any:
    changed = change(value, path)
    if changed is not value:
        return changed
    if type(value) is dict or (isinstance(value, dict) and not is_sharded(value)):
        return {key: _mapped(item, f"{path}/{key}", change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(item, f"{path}/{index}", change) for index, item in enumerate(value))
    return value


def _piece(value: Any, path: str, table: dict[str, Any], seen: set[Hashable]) -> Any:
    if not is_sharded(value):
        return value
    if any(each.is_partial() for each in value.placements):
        raise InvalidInput(f"{path} is a DTensor with a pending reduction: redistribute it before it is saved")
    local = value.detach().to_local()
    if any(not each.is_replicate() for each in value.placements):
        memory = (local.data_ptr(), local.device, local.dtype, tuple(local.shape), local.stride())
        if local.numel() == 0 or memory not in seen:  # a tied parameter is one array, under its first name
            seen.add(memory)
            table[path] = {"shape": list(value.shape), "offsets": list(_box(value).offsets)}
    return local


def _box(value: Any) -> Box:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sizes, offsets = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
    return Box(tuple(offsets), tuple(sizes))


def _joined(shape: tuple[int, ...], dtype: torch.dtype, chunks: Chunks, here: Any) -> Any:
    """The part that this rank holds of an array of this shape, in the form of what it holds now."""
    fits = is_sharded(here) and tuple(here.shape) == shape
    if here is not None and tuple(here.shape) != shape:
        return torch.empty(shape, dtype=dtype, device="meta")  # a misfit, to be told of by its shape
    box = _box(here) if fits else whole(shape)
    local = _filled(box, dtype, chunks)
    if not fits:
        return local
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local.to(here.device),
        here.device_mesh,
        here.placements,
        run_check=False,
        shape=here.shape,
        stride=here.stride(),
    )


def _filled(box: Box, dtype: torch.dtype, chunks: Chunks) -> torch.Tensor:
    for offsets, chunk in chunks:
        if (offsets, tuple(chunk.shape)) == (box.offsets, box.sizes):
            return chunk
    local = torch.empty(box.sizes, dtype=dtype)
    for offsets, chunk in chunks:
        common = box.overlap(Box(offsets, tuple(chunk.shape)))
        if common is not None:
            _part(local, box.offsets, common).copy_(_part(chunk, offsets, common))
    return local


def _part(tensor: torch.Tensor, begins: tuple[int, ...], box: Box) -> torch.Tensor:
    for axis, (offset, begin, size) in enumerate(zip(box.offsets, begins, box.sizes, strict=True)):
        tensor = tensor.narrow(axis, offset - begin, size)
    return tensor
