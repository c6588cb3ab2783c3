"""PyTorch: what is captured, how it is staged, and how it goes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from spotrelay.core.ports import Body
from trainer_shim.finite import finite, has_patterns
from trainer_shim.frameworks import feeding, torch_data, torch_random, torch_ranks, torch_staging
from trainer_shim.frameworks.extra import Extra
from trainer_shim.frameworks.torch_fitting import (
    COMPILED,
    Owners,
    apply_model,
    apply_optimizer,
    difference,
    model_misfits,
    optimizer_misfits,
    plain_names,
)
from trainer_shim.frameworks.torch_kinds import described, dtype_of, stand_in
from trainer_shim.frameworks.torch_replicas import Replicas
from trainer_shim.frameworks.torch_sharded import is_sharded
from trainer_shim.frameworks.torch_sparse import composed
from trainer_shim.ranks import Ranks
from trainer_shim.shards import Plan
from trainer_shim.staging import Pin
from trainer_shim.tree import BYTES, Array, Composite, Leaf

TRAINED, FROZEN, BUFFERS, MOMENTS, COUNTERS, OTHERS = "trained", "frozen", "buffers", "moments", "counters", "others"
WATCHED = (TRAINED, FROZEN, MOMENTS, COUNTERS)  # not buffers: an attention mask is full of infinities, and rightly so


class TorchFramework:
    """What one script attached."""

    ready = True
    state = None
    rolls_back = True

    def __init__(self, model: Any, optimizer: Any, scheduler: Any, scaler: Any, extra: Any) -> None:
        self.replicas = Replicas()
        others = {**_named("optimizer", optimizer), **_named("scheduler", scheduler), **_named("scaler", scaler)}
        self.hold(_named("model", model), others)
        self.extra = Extra(extra)
        self._stager = torch_staging.Stager()
        self._guarded: set[int] = set()
        self._trained: frozenset[str] = frozenset()  # paths of parameters that an optimizer changes
        self._frozen: frozenset[str] = frozenset()  # paths of all other parameters
        self._states: tuple[str, ...] = ()  # beginnings of the paths of optimizers' arrays

    def hold(self, models: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        """Take these as what the script attached, by name; see `Replicas.hold`."""
        self.others = others
        self.replicas.hold(models, others)
        self.models = self.replicas.bare
        self.sharded = self.replicas.sharded

    def renew(self, state: Any) -> None:
        """See `trainer_shim.framework.Framework.renew`."""
        if state is not None:
            raise InvalidInput("run.step(state=...) is for attach(state=...): torch modules change in place")

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
            "models": {name: plain_names(model.state_dict()) for name, model in self.models.items()},
            "others": {name: each.state_dict() for name, each in self.others.items()},
            "kinds": {name: type(each).__name__ for name, each in self.others.items()},
            "extra": self.extra.capture(),
            "random": torch_random.process_state(),
            "orders": self.replicas.orders(),
        }
        return self.sharded.taken_apart(state)

    def describe(self, value: Any, path: str) -> Array | Composite | None:
        """See `trainer_shim.framework.Framework.describe`."""
        if is_sharded(value):
            raise InvalidInput(f"{path} is a DTensor: only models and optimizers may hold one")
        found = described(value, path, self._group)
        if isinstance(found, Array) and path in self.sharded.names and not found.size:
            return found._replace(identity=(path,))  # empty pieces of different arrays are not the same memory
        return found

    @property
    def pin(self) -> Pin | None:
        """See `trainer_shim.framework.Framework.pin`."""
        device = self._gpu()
        return None if device is None else partial(torch_staging.pin, device)

    @property
    def copiers(self) -> int:
        """See `trainer_shim.framework.Framework.copiers`."""
        return torch_staging.COPIERS if self._gpu() is None else 1  # a device copies by itself

    def stage(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview) -> None:
        """See `trainer_shim.framework.Framework.stage`."""
        self._stager.stage(leaves, plan, shard, memory)

    def bad_gradients(self) -> str:
        """See `trainer_shim.framework.Framework.bad_gradients`."""
        if any(isinstance(each, torch.amp.GradScaler) for each in self.others.values()):
            return ""  # it judges them itself: every now and then it has to find infinite ones
        left = {
            f"{name}: {key}": parameter.grad
            for name, model in self.models.items()
            for key, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.layout is torch.strided
        }
        broken = _not_finite(left)
        return f"gradients are not finite: {', '.join(broken[:3])}" if broken else ""

    def mark(self, leaves: Sequence[Leaf]) -> None:
        """See `trainer_shim.framework.Framework.mark`."""
        self._stager.mark(leaves)

    def landed(self) -> None:
        """See `trainer_shim.framework.Framework.landed`."""
        self._stager.landed()

    def bodies(self, leaves: Sequence[Leaf], plan: Plan) -> list[Body] | None:
        """See `trainer_shim.framework.Framework.bodies`."""
        return torch_staging.bodies(leaves, plan)

    def not_finite(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview | None) -> tuple[str, ...]:
        """See `trainer_shim.framework.Framework.not_finite`."""
        broken = []
        for piece in plan.shards[shard].pieces:
            leaf = leaves[piece.leaf]
            if leaf.group not in WATCHED or not piece.size or not has_patterns(leaf.dtype):
                continue
            here = torch_staging.in_place(leaf, piece) if memory is None else memory[piece.offset :][: piece.size]
            if not finite(here, leaf.dtype):
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
        kind = dtype_of(dtype)
        try:
            if len(data) == 0:
                return torch.empty(shape, dtype=kind)
            return torch.frombuffer(data, dtype=kind).reshape(shape)
        except (ValueError, RuntimeError) as error:
            raise InvalidInput(f"{len(data)} bytes are no {dtype} array of shape {shape}") from error

    def stand_in(self, dtype: str, shape: tuple[int, ...]) -> Any:
        """See `trainer_shim.framework.Framework.stand_in`."""
        return b"" if dtype == BYTES else stand_in(dtype, shape)

    def compose(self, kind: str, parts: dict[str, Any]) -> Any:
        """See `trainer_shim.framework.Framework.compose`."""
        return composed(kind, parts)

    def copied(self, name: str) -> bool:
        """See `trainer_shim.framework.Framework.copied`."""
        return name.startswith("models/")

    def misfits(self, state: dict[str, Any]) -> list[str]:
        """See `trainer_shim.framework.Framework.misfits`."""
        if not {"models", "others", "extra", "random"} <= state.keys():
            return ["it was written by another framework's script"]
        state = self.sharded.put_together(state)
        found = difference("model", state["models"], self.models) + difference("", state["others"], self.others)
        for name, model in self.models.items():
            if name in state["models"]:
                found += model_misfits(name, state["models"][name], plain_names(model.state_dict()))
        kinds = state.get("kinds", {})
        for name, each in self.others.items():
            if name in state["others"] and isinstance(each, torch.optim.Optimizer):
                found += optimizer_misfits(name, kinds.get(name, ""), state["others"][name], each)
        return found + self.extra.misfits(state["extra"])

    def apply(self, state: dict[str, Any]) -> None:
        """See `trainer_shim.framework.Framework.apply`."""
        state = self.sharded.put_together(state)
        owners = Owners()
        owners.see(state["models"])  # only copied from: whoever else has one of them gets a copy
        others = owners.own(state.pop("others"))
        extra = owners.own(state.pop("extra"))
        del owners
        for name in sorted(self.models):
            apply_model(self.models[name], state["models"].pop(name))
        for name, each in self.others.items():
            saved = others.pop(name)
            if isinstance(each, torch.optim.Optimizer):
                apply_optimizer(name, each, saved)
            else:
                each.load_state_dict(saved)
        self.extra.apply(extra)
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
    ) -> feeding.LoaderFeed:
        """See `trainer_shim.framework.Framework.feed`."""
        return torch_data.feed(loader, endless, tracked, position, settled)

    def loss(self, value: Any, wait: bool) -> float | None:
        """See `trainer_shim.framework.Framework.loss`."""
        if isinstance(value, torch.Tensor):
            if value.device.type != "cpu" and not wait:
                return None
            return float(value.detach()) if value.numel() == 1 else None
        return None if value is None else float(value)

    def _gpu(self) -> torch.device | None:
        """That of the models, if they are on one."""
        parameters = (parameter for model in self.models.values() for parameter in model.parameters())
        return next((parameter.device for parameter in parameters if parameter.is_cuda), None)

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
        trained: set[str] = set()
        frozen: set[str] = set()
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


def _finite(array: torch.Tensor) -> bool:
    # One pass of additions is thirty times as fast as looking at each element, and one element that is
    # not finite makes the sum so. A finite array may overflow its sum, so a bad sum is looked into.
    if array.element_size() == 1:
        array = array.to(torch.float32)
    wide = torch.float32 if array.element_size() == 2 else array.dtype
    return bool(torch.isfinite(array.sum(dtype=wide))) or bool(torch.isfinite(array).all())


def _not_finite(arrays: Mapping[str, torch.Tensor]) -> list[str]:
    # One sum for each, and one look at all of them for each device, since each look waits for it.
    sums: dict[torch.device, list[torch.Tensor]] = {}
    for array in arrays.values():
        sums.setdefault(array.device, []).append(array.detach().sum(dtype=_wide(array)).abs().to(torch.float32))
    if all(bool(torch.isfinite(torch.stack(each)).all()) for each in sums.values()):
        return []
    return [name for name, array in arrays.items() if not _finite(array.detach())]


def _wide(array: torch.Tensor) -> torch.dtype:
    return torch.float32 if array.element_size() < 4 else array.dtype
