"""PyTorch: what is captured, how it is staged, and how it goes back."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks import torch_data, torch_random
from trainer_shim.frameworks.torch_extra import Extra
from trainer_shim.shards import Plan
from trainer_shim.tree import BYTES, Array, Leaf

LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # optimizer arrays of its shape
COMPILED = "_orig_mod."  # what torch.compile puts into parameter names


class TorchFramework:
    """What one script attached."""

    ready = True

    def __init__(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> None:
        self.models = _named("model", model)
        self.others = {
            **_named("optimizer", optimizer),
            **_named("scheduler", scheduler),
            **_named("scaler", scaler),
        }
        self.extra = Extra(extra)
        self._staged: tuple[Plan, int, list[torch.Tensor]] | None = None

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
        return {
            "models": {name: _plain_names(model.state_dict()) for name, model in self.models.items()},
            "others": {name: each.state_dict() for name, each in self.others.items()},
            "extra": self.extra.capture(),
            "random": torch_random.process_state(),
        }

    def describe(self, value: Any, path: str) -> Array | None:
        """See `trainer_shim.framework.Framework.describe`."""
        if not isinstance(value, torch.Tensor):
            return None
        if value.is_meta or value.layout is not torch.strided or value.is_quantized:
            kind = "a meta tensor" if value.is_meta else f"a {value.layout} or quantized tensor"
            raise InvalidInput(f"{path} is {kind}: a checkpoint cannot hold it. Materialise it before attach()")
        shape = tuple(value.shape)
        where = (value.data_ptr(), value.device, value.dtype, shape, value.stride())
        return Array(str(value.dtype).removeprefix("torch."), shape, value.numel() * value.element_size(), where)

    def stage(self, leaves: Sequence[Leaf], plan: Plan, buffer: memoryview) -> None:
        """See `trainer_shim.framework.Framework.stage`."""
        if self._staged is None or self._staged[0] is not plan or self._staged[1] != id(buffer.obj):
            self._staged = (plan, id(buffer.obj), _destinations(leaves, plan, buffer))
        gpu = False
        for piece, target in zip(plan.pieces, self._staged[2], strict=True):
            leaf = leaves[piece.leaf]
            if leaf.dtype == BYTES:
                buffer[piece.offset : piece.offset + piece.size] = leaf.value[piece.start : piece.start + piece.size]
            elif piece.size:
                source = leaf.value.detach()
                gpu = gpu or source.is_cuda
                if piece.size != leaf.size:
                    first = piece.start // source.element_size()
                    source = source.reshape(-1)[first : first + target.numel()]
                target.copy_(source, non_blocking=True)
        if gpu:
            torch.cuda.synchronize()

    def not_finite(self, plan: Plan, buffer: memoryview) -> tuple[str, ...]:
        """See `trainer_shim.framework.Framework.not_finite`."""
        if self._staged is None or self._staged[0] is not plan:
            return ()
        watched = self._watched()
        broken = []
        for piece, target in zip(plan.pieces, self._staged[2], strict=True):
            name = piece.entry.partition("#")[0]
            if watched(name) and target.is_floating_point() and not _finite(target):
                broken.append(name)
        return tuple(dict.fromkeys(broken))

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
        for name, model in self.models.items():
            saved = state["models"][name]
            model.load_state_dict({key: saved[key.replace(COMPILED, "")] for key in model.state_dict()})
        for name, each in self.others.items():
            saved = _owned(state["others"][name])
            each.load_state_dict(saved)
            if isinstance(each, torch.optim.Optimizer):
                _keep_types(each, saved)
        self.extra.apply(_owned(state["extra"]))
        self.apply_randomness(state)

    def apply_randomness(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply_randomness`."""
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

    def _watched(self) -> Callable[[str], bool]:
        # Buffers are left out: an attention mask is full of infinities, and rightly so.
        parameters = {
            f"models/{name}/{key.replace(COMPILED, '')}"
            for name, model in self.models.items()
            for key, _ in model.named_parameters(remove_duplicate=False)
        }
        optimizers = tuple(
            f"others/{name}/state/" for name, each in self.others.items() if isinstance(each, torch.optim.Optimizer)
        )
        return lambda name: name in parameters or name.startswith(optimizers)


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


def _destinations(leaves: Sequence[Leaf], plan: Plan, buffer: memoryview) -> list[torch.Tensor]:
    targets = []
    for piece in plan.pieces:
        leaf = leaves[piece.leaf]
        if leaf.dtype == BYTES or piece.size == 0:
            targets.append(torch.empty(0))
            continue
        kind = leaf.value.dtype
        count = piece.size // leaf.value.element_size()
        flat = torch.frombuffer(buffer, dtype=kind, count=count, offset=piece.offset)
        targets.append(flat.view(leaf.shape) if piece.size == leaf.size else flat)
    return targets


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
