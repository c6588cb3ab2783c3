"""PyTorch: what is captured, how it is staged, and how it goes back."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from spotrelay.core.ports import Body
from trainer_shim.frameworks import torch_data, torch_random, torch_ranks, torch_staging
from trainer_shim.frameworks.torch_extra import Extra
from trainer_shim.frameworks.torch_replicas import COMPILED, Replicas
from trainer_shim.frameworks.torch_sharded import is_sharded
from trainer_shim.ranks import Ranks
from trainer_shim.shards import Plan
from trainer_shim.staging import Pin
from trainer_shim.tree import BYTES, Array, Leaf

LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # optimizer arrays of its shape
TRAINED, FROZEN, BUFFERS, MOMENTS, COUNTERS, OTHERS = "trained", "frozen", "buffers", "moments", "counters", "others"
WATCHED = (TRAINED, FROZEN, MOMENTS, COUNTERS)  # not buffers: an attention mask is full of infinities, and rightly so


class TorchFramework:
    """What one script attached."""

    ready = True

    def __init__(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> None:
        self.others = {
            **_named("optimizer", optimizer),
            **_named("scheduler", scheduler),
            **_named("scaler", scaler),
        }
        self.replicas = Replicas(_named("model", model), self.others)
        self.models = self.replicas.bare
        self.sharded = self.replicas.sharded
        self.extra = Extra(extra)
        self._stager = torch_staging.Stager()
        self._guarded: set[int] = set()
        self._trained: frozenset[str] = frozenset()  # paths of parameters that an optimizer changes
        self._frozen: frozenset[str] = frozenset()  # paths of all other parameters
        self._states: tuple[str, ...] = ()  # beginnings of the paths of optimizers' arrays

    def ranks(self) -> Ranks:
        """The processes that train this model together; each of them has to ask."""
        return torch_ranks.ranks()

    @property
    def versions(self) -> dict[str, str]:
        """See `trainer_shim.framework.Framework.versions`."""
        found = {"torch": str(torch.__version__)}
        numpy = sys.modules.get("numpy")
        return found if numpy is None else {**found, "numpy": str(numpy.__version__)}

    @property
    def threads(self) -> int:
        """See `trainer_shim.framework.Framework.threads`."""
        return torch.get_num_threads()

    def capture(self) -> dict[str, Any]:
        """See `trainer_shim.framework.Framework.capture`."""
        self._sort_parameters()
        state = {
            "models": {name: _plain_names(model.state_dict()) for name, model in self.models.items()},
            "others": {name: each.state_dict() for name, each in self.others.items()},
            "extra": self.extra.capture(),
            "random": torch_random.process_state(),
            "orders": self.replicas.orders(),
        }
        return self.sharded.taken_apart(state)

    def describe(self, value: Any, path: str) -> Array | None:
        """See `trainer_shim.framework.Framework.describe`."""
        if not isinstance(value, torch.Tensor):
            return None
        if value.is_meta or value.layout is not torch.strided or value.is_quantized:
            kind = "a meta tensor" if value.is_meta else f"a {value.layout} or quantized tensor"
            raise InvalidInput(f"{path} is {kind}: a checkpoint cannot hold it. Materialise it before attach()")
        if is_sharded(value):
            raise InvalidInput(f"{path} is a DTensor: only models and optimizers may hold one")
        shape = tuple(value.shape)
        where: tuple[Any, ...] = (value.data_ptr(), value.device, value.dtype, shape, value.stride())
        if path in self.sharded.names and not value.numel():
            where = (path,)  # empty pieces of different arrays are not the same memory
        size = value.numel() * value.element_size()
        return Array(str(value.dtype).removeprefix("torch."), shape, size, where, self._group(value, path))

    @property
    def pin(self) -> Pin | None:
        """See `trainer_shim.framework.Framework.pin`."""
        return torch_staging.pin if torch.cuda.is_available() else None

    def stage(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview) -> None:
        """See `trainer_shim.framework.Framework.stage`."""
        self._stager.stage(leaves, plan, shard, memory)

    def landed(self) -> None:
        """See `trainer_shim.framework.Framework.landed`."""
        self._stager.landed()

    def bodies(self, leaves: Sequence[Leaf], plan: Plan) -> list[Body] | None:
        """See `trainer_shim.framework.Framework.bodies`."""
        return torch_staging.bodies(leaves, plan)

    def not_finite(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview | None) -> tuple[str, ...]:
        """See `trainer_shim.framework.Framework.not_finite`."""
        arrays = self._stager.staged(leaves, plan, shard, memory) if memory is not None else None
        broken = []
        for index, piece in enumerate(plan.shards[shard].pieces):
            leaf = leaves[piece.leaf]
            if leaf.group not in WATCHED:
                continue
            array = leaf.value.detach() if arrays is None else arrays[index]
            if array.is_floating_point() and not _finite(array):
                broken.append(leaf.name)
        return tuple(dict.fromkeys(broken))

    def keeps_still(self, group: str) -> bool:
        """See `trainer_shim.framework.Framework.keeps_still`."""
        return group in (TRAINED, FROZEN, MOMENTS)

    def guard(self, settle: Callable[[], None]) -> bool:
        """See `trainer_shim.framework.Framework.guard`."""
        for each in self._optimizers():
            if id(each) not in self._guarded:
                each.register_step_pre_hook(lambda *_: settle())
                self._guarded.add(id(each))
        return bool(self._guarded)

    def stamps(self, leaves: Sequence[Leaf]) -> list[int]:
        """See `trainer_shim.framework.Framework.stamps`."""
        return [
            leaf.value._version for leaf in leaves if self.keeps_still(leaf.group) and not leaf.value.is_inference()
        ]

    def array(self, data: memoryview, dtype: str, shape: tuple[int, ...]) -> Any:
        """See `trainer_shim.framework.Framework.array`."""
        if dtype == BYTES:
            return bytes(data)
        kind = getattr(torch, dtype, None)
        if not isinstance(kind, torch.dtype):
            raise InvalidInput(f"this version of torch has no type {dtype}")
        try:
            if len(data) == 0:
                return torch.empty(shape, dtype=kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the bytes are read-only: nobody writes to them
                return torch.frombuffer(data, dtype=kind).reshape(shape)
        except (ValueError, RuntimeError) as error:
            raise InvalidInput(f"{len(data)} bytes are no {dtype} array of shape {shape}") from error

    def misfits(self, state: dict[str, Any]) -> list[str]:
        """See `trainer_shim.framework.Framework.misfits`."""
        state = self.sharded.put_together(state)
        found = _difference("model", state["models"], self.models) + _difference("", state["others"], self.others)
        for name, model in self.models.items():
            if name in state["models"]:
                found += _model_misfits(name, state["models"][name], _plain_names(model.state_dict()))
        for name, each in self.others.items():
            if name in state["others"] and isinstance(each, torch.optim.Optimizer):
                found += _optimizer_misfits(name, state["others"][name], each)
        return found + self.extra.misfits(state["extra"])

    def apply(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply`."""
        state = self.sharded.put_together(state)
        for name, model in self.models.items():
            saved = state["models"][name]
            model.load_state_dict({key: saved[key.replace(COMPILED, "")] for key in model.state_dict()})
        for name, each in self.others.items():
            saved = _owned(state["others"][name])
            each.load_state_dict(saved)
            if isinstance(each, torch.optim.Optimizer):
                _keep_types(each, saved)
        self.extra.apply(_owned(state["extra"]))
        self.replicas.arrange(state.get("orders", {}))
        self.apply_randomness(state)

    def apply_randomness(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply_randomness`."""
        if state["random"] is not None:  # None: a rank that the checkpoint does not know
            torch_random.set_process_state(state["random"])

    def feed(
        self,
        loader: Any,
        endless: bool,
        tracked: bool,
        position: dict[str, Any] | None,
        settled: Callable[[], None],
    ) -> torch_data.LoaderFeed:
        """See `trainer_shim.framework.Framework.feed`."""
        return torch_data.feed(loader, endless, tracked, position, settled)

    def loss(self, value: Any, wait: bool) -> float | None:
        """See `trainer_shim.framework.Framework.loss`."""
        if isinstance(value, torch.Tensor):
            if value.device.type != "cpu" and not wait:
                return None
            return float(value.detach()) if value.numel() == 1 else None
        return None if value is None else float(value)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [each for each in self.others.values() if isinstance(each, torch.optim.Optimizer)]

    def _group(self, value: torch.Tensor, path: str) -> str:
        if path in self._trained:
            return TRAINED
        if path in self._frozen:
            return FROZEN
        if path.startswith("models/"):
            return BUFFERS
        if path.startswith(self._states):
            return MOMENTS if value.dim() else COUNTERS
        return OTHERS

    def _sort_parameters(self) -> None:
        held = {id(p) for each in self._optimizers() for group in each.param_groups for p in group["params"]}
        trained, frozen = set(), set()
        for name, model in self.models.items():
            for key, parameter in model.named_parameters(remove_duplicate=False):
                path = f"models/{name}/{key.replace(COMPILED, '')}"
                (trained if id(parameter) in held or not held else frozen).add(path)
        self._trained, self._frozen = frozenset(trained), frozenset(frozen)
        self._states = tuple(
            f"others/{name}/state/" for name, each in self.others.items() if isinstance(each, torch.optim.Optimizer)
        )


def _named(kind: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {f"{kind}.{key}": value for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return {f"{kind}.{index}": value for index, value in enumerate(given)}
    return {kind: given}


def _plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace(COMPILED, ""): value for key, value in state.items()}


def _finite(array: torch.Tensor) -> bool:
    # One pass of additions is thirty times as fast as looking at each element, and one element that is
    # not finite makes the sum so. A finite array may overflow its sum, so a bad sum is looked into.
    if array.element_size() == 1:
        array = array.to(torch.float32)
    wide = torch.float32 if array.element_size() == 2 else array.dtype
    return bool(torch.isfinite(array.sum(dtype=wide))) or bool(torch.isfinite(array).all())


def _difference(kind: str, saved: Mapping[str, Any], attached: Mapping[str, Any]) -> list[str]:
    return [f"{name} is in the checkpoint, and was not attached" for name in saved if name not in attached] + [
        f"{name} was attached, and is not in the checkpoint" for name in attached if name not in saved
    ]


def _model_misfits(name: str, saved: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    found = [f"{name}: {key} is in the checkpoint only" for key in saved if key not in live]
    found += [f"{name}: {key} is in the model only" for key in live if key not in saved]
    for key, here in live.items():
        there = saved.get(key)
        if isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor):
            if here.shape != there.shape:
                found.append(
                    f"{name}: {key} is {tuple(there.shape)} in the checkpoint, {tuple(here.shape)} in the model"
                )
            elif here.dtype != there.dtype:
                found.append(f"{name}: {key} is {there.dtype} in the checkpoint, {here.dtype} in the model")
    return found


def _optimizer_misfits(name: str, saved: Mapping[str, Any], live: torch.optim.Optimizer) -> list[str]:
    there = [len(group["params"]) for group in saved["param_groups"]]
    here = [len(group["params"]) for group in live.param_groups]
    if there != here:
        return [f"{name}: parameters per group are {there} in the checkpoint, {here} here"]
    parameters = [p for group in live.param_groups for p in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    found = []
    for index, parameter in zip(indices, parameters, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            if isinstance(value, torch.Tensor) and key in LIKE_PARAMETER and value.shape != parameter.shape:
                found.append(
                    f"{name}: {key} of parameter {index} is {tuple(value.shape)}, not {tuple(parameter.shape)}"
                )
    return found


def _owned(value: Any) -> Any:
    # Arrays of a restored state are views of downloaded bytes; optimizers keep what they are given.
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _owned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_owned(item) for item in value)
    return value


def _keep_types(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    # load_state_dict casts to the parameter's type; a 32-bit moment of a 16-bit parameter must stay 32-bit.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            loaded = optimizer.state[parameter].get(key)
            if isinstance(value, torch.Tensor) and isinstance(loaded, torch.Tensor) and loaded.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(loaded.device)
