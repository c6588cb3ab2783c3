"""Models under DistributedDataParallel: what of them is alike on all ranks, and in which order they add gradients."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.torch_fitting import COMPILED
from trainer_shim.frameworks.torch_sharded import Sharded
from trainer_shim.layouts import Box
from trainer_shim.sharing import Place
from trainer_shim.tree import BYTES, Leaf
from trainer_shim.voice import say

WITNESSES = 8  # arrays of which a piece is compared between ranks at each save
WITNESSED = 4096  # elements of each


class Replicas:
    """The models and optimizers that one script attached, as far as several ranks hold them together."""

    def __init__(self) -> None:
        self.hold({}, {})

    def hold(self, models: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        """Take these models and optimizers, in place of any before them.

        Raises:
            InvalidInput: one of them is sharded in a way that cannot be saved; names what can.
        """
        self.bare = {name: _unwrapped(model) for name, model in models.items()}
        self._wrapped = {name: _wrapper(model) for name, model in models.items()}
        self.sharded = Sharded(self.bare, others)
        self._orders: dict[str, list[int]] = {}
        self._names: dict[str, set[str]] = {}  # of parameters, by model
        for name, model in models.items():
            if _is_flat(model):
                raise InvalidInput(
                    f"{name} is under FullyShardedDataParallel (FSDP1), whose flat parameters no other number of ranks "
                    "could take up: shard it by torch.distributed.fsdp.fully_shard (FSDP2)"
                )
        for name, each in others.items():
            if isinstance(each, ZeroRedundancyOptimizer):
                raise InvalidInput(
                    f"{name} is a ZeroRedundancyOptimizer, whose parts no rank has whole: shard model and optimizer by "
                    "torch.distributed.fsdp.fully_shard (FSDP2), or give every rank a plain optimizer"
                )

    def place(self, name: str) -> Place:
        """Whose copy of the array with this name is saved."""
        if name in self.sharded.names:
            return Place.EACH
        kind, _, rest = name.partition("/")
        if kind == "others":
            return Place.ANY
        if kind != "models":
            return Place.EACH
        model, _, key = rest.rstrip("~").partition("/")
        if key in self._parameters(model):
            return Place.ANY
        return Place.FIRST if self._hands_buffers_on(model) else Place.EACH

    def own(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The part of a state's tree that every rank has for itself."""
        buffers = {
            name: {key: value for key, value in state.items() if key not in self._parameters(name)}
            for name, state in tree["models"].items()
            if not self._hands_buffers_on(name)
        }
        mine = {"models": buffers, **{key: tree[key] for key in ("extra", "random", "data")}}
        return {**mine, "sharded": tree["sharded"]} if "sharded" in tree else mine

    def wanted(self, name: str, shape: tuple[int, ...]) -> Box | None:
        """Which part of a saved array this rank needs; None for all of it."""
        return self.sharded.wanted(name, shape)

    def witness(self, leaves: Sequence[Leaf], turn: int) -> str:
        """Digest of pieces of some of these arrays, others at each turn."""
        held = [leaf for leaf in leaves if leaf.size]
        found = xxhash.xxh3_128()
        for number in range(min(WITNESSES, len(held))):
            leaf = held[(turn + number * len(held) // WITNESSES) % len(held)]
            found.update(leaf.value if leaf.dtype == BYTES else _piece(leaf.value))
        return found.hexdigest()

    def orders(self) -> dict[str, list[int]]:
        """By model, in which order its gradients were ready when DistributedDataParallel made its buckets."""
        for name, wrapper in self._wrapped.items():
            if wrapper is not None and name not in self._orders:
                order = _order(wrapper)
                if order:
                    self._orders[name] = order
        return self._orders

    def arrange(self, orders: Mapping[str, list[int]]) -> None:
        """Make the buckets that the run had, so that gradients are added up in the same order.

        A fresh wrapper adds its first gradients in other buckets than its later ones, and a sum of more than two
        floats depends on its order. So it sees one backward pass of zeros, ready in the order of the run.
        """
        for name, order in orders.items():
            wrapper = self._wrapped.get(name)
            if wrapper is None or not _makes_buckets_anew(wrapper) or order == self._orders.get(name):
                continue
            if sorted(order) != list(range(len(wrapper._module_parameters))):
                continue
            try:
                _pass_zeros(wrapper, order)
            except AttributeError as error:
                say(f"this version of torch adds up gradients in another order ({error}): last bits may differ")
                return
            self._orders[name] = list(order)

    def _parameters(self, model: str) -> set[str]:
        if model not in self._names:
            named = self.bare[model].named_parameters(remove_duplicate=False)
            self._names[model] = {key.replace(COMPILED, "") for key, _ in named}
        return self._names[model]

    def _hands_buffers_on(self, model: str) -> bool:
        wrapper = self._wrapped[model]
        return wrapper is not None and bool(wrapper.broadcast_buffers)


def wraps(model: Any) -> bool:
    """Whether it is a model in a DistributedDataParallel."""
    return _wrapper(model) is not None


def _wrapper(model: Any) -> DistributedDataParallel | None:
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, DistributedDataParallel) else None


def _unwrapped(model: Any) -> Any:
    wrapper = _wrapper(model)
    return model if wrapper is None else wrapper.module


def _is_flat(model: Any) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever wraps a model in it has imported it
    return fsdp is not None and any(isinstance(each, fsdp.FullyShardedDataParallel) for each in model.modules())


def _piece(array: torch.Tensor) -> Any:
    piece = array.detach().reshape(-1)[:WITNESSED].cpu().resolve_conj().resolve_neg().contiguous()
    return piece.view(torch.uint8).numpy()


def _makes_buckets_anew(wrapper: DistributedDataParallel) -> bool:
    """Whether its later gradients are added up in other buckets than its first."""
    return bool(wrapper.static_graph or not wrapper.find_unused_parameters)


def _order(wrapper: DistributedDataParallel) -> list[int]:
    said = wrapper._get_ddp_logging_data()  # type: ignore[no-untyped-call]  # torch has no annotation
    text = str(said.get("prev_iteration_grad_ready_order_indices", ""))
    return [int(index) for index in text.split(",")] if text.strip() else []


def _pass_zeros(wrapper: DistributedDataParallel, order: Sequence[int]) -> None:
    parameters = wrapper._module_parameters
    kept = [parameter.grad for parameter in parameters]
    wrapper.reducer.prepare_for_forward()
    wrapper.reducer.prepare_for_backward([])
    link = torch.zeros((), requires_grad=True)
    for index in reversed(order):
        link = _Zero.apply(link, parameters[index])  # type: ignore[no-untyped-call]  # torch has no annotation
    torch.autograd.backward(link)
    for parameter, gradient in zip(parameters, kept, strict=True):
        parameter.grad = gradient


class _Zero(torch.autograd.Function):
    """Gives a parameter a gradient of zeros before the rest of the chain goes on."""

    @staticmethod
    def forward(ctx: Any, link: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(parameter)
        return link.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (parameter,) = ctx.saved_tensors
        return gradients[0], torch.zeros_like(parameter)
