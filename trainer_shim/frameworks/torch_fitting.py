"""Whether a checkpoint fits the models and optimizers that a script attached, and putting it there.

What is decided here is written down in docs/shim.md, "Across versions".
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from trainer_shim.frameworks.torch_kinds import one_run_of_bytes
from trainer_shim.frameworks.torch_sparse import COMPRESSED
from trainer_shim.together import together
from trainer_shim.voice import say

COMPILED = "_orig_mod."  # what torch.compile puts into parameter names
COPIERS = 4  # threads; what comes back from a file is waited for
NEEDED = {
    "ASGD": {"step", "eta", "mu", "ax"},
    "Adadelta": {"step", "square_avg", "acc_delta"},
    "Adagrad": {"step", "sum"},
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "Adamax": {"step", "exp_avg", "exp_inf"},
    "NAdam": {"step", "mu_product", "exp_avg", "exp_avg_sq"},
    "RAdam": {"step", "exp_avg", "exp_avg_sq"},
    "RMSprop": {"step", "square_avg"},
    "Rprop": {"step", "prev", "step_size"},
    "SGD": set(),
}  # what torch's own optimizers look for in the state of a parameter that has one
SOMETIMES = {"max_exp_avg_sq", "momentum_buffer", "grad_avg"}  # what they keep besides, by their options
SCALARS = {"step", "eta", "mu", "mu_product"}
LIKE_PARAMETER = SOMETIMES.union(*NEEDED.values()) - SCALARS  # state of the parameter's own shape


def difference(kind: str, saved: Mapping[str, Any], attached: Mapping[str, Any]) -> list[str]:
    """What only one side has."""
    return [f"{name} is in the checkpoint, and was not attached" for name in saved if name not in attached] + [
        f"{name} was attached, and is not in the checkpoint" for name in attached if name not in saved
    ]


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A model's state under the names that it has without torch.compile."""
    return {key.replace(COMPILED, ""): value for key, value in state.items()}


def model_misfits(name: str, saved: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """Every reason why a model cannot take these tensors."""
    found = [f"{name}: {key} is in the checkpoint only" for key in saved if key not in live]
    found += [f"{name}: {key} is in the model only" for key in live if key not in saved]
    for key, here in live.items():
        there = saved.get(key)
        if isinstance(here, torch.Tensor) != isinstance(there, torch.Tensor) and key in saved:
            found.append(f"{name}: {key} is a tensor in one of checkpoint and model only")
        elif isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor):
            found += [
                f"{name}: {key} is {a} in the checkpoint, {b} in the model" for a, b in _tensor_misfits(there, here)
            ]
    return found


def _tensor_misfits(there: torch.Tensor, here: torch.Tensor) -> list[tuple[Any, Any]]:
    for what in (lambda each: tuple(each.shape), lambda each: each.dtype, lambda each: each.layout):
        if what(there) != what(here):
            return [(what(there), what(here))]
    if here.layout in COMPRESSED and there.values().shape != here.values().shape:  # torch cannot copy it then
        return [(f"of {len(there.values())} elements", f"of {len(here.values())}")]
    return []


def apply_model(model: torch.nn.Module, saved: dict[str, Any]) -> None:
    """Copy a state without misfits into a model's own memory; takes each tensor out of it."""
    live = model.state_dict(keep_vars=True)  # the very parameters: to load one into itself costs nothing
    own = {each.data_ptr() for each in [*model.parameters(), *model.buffers()] if _plain(each)}
    uses = Counter(key.replace(COMPILED, "") for key in live)
    given: dict[str, Any] = {}
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    for key in sorted(live):  # the order in which they were kept aside: what is in a file comes last
        name = key.replace(COMPILED, "")
        uses[name] -= 1
        there = saved[name] if uses[name] else saved.pop(name)
        here = live[key]
        if _plain(here) and _plain(there) and here.data_ptr() in own:
            copies.append((there, here))
            there = here
        given[key] = there
    _copy_all(copies)
    model.load_state_dict(given)  # copies what is not the model's own memory, and runs the modules' own hooks


def _plain(value: Any) -> bool:
    return type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided


def _copy_all(copies: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copy each first tensor into its second, in their order, and let go of it at once."""
    copies.reverse()
    together(lambda _: _copy(*copies.pop()), range(len(copies)), COPIERS)


def _copy(there: torch.Tensor, here: torch.Tensor) -> None:
    if one_run_of_bytes(here) and one_run_of_bytes(there):
        # torch would wake its threads for each tensor, which costs more than the copy itself.
        ctypes.memmove(here.data_ptr(), there.data_ptr(), here.nbytes)
        return
    for dimension, stride in enumerate(here.stride()):
        if stride == 0 and here.shape[dimension] > 1:  # one element under several indices
            here, there = here.narrow(dimension, 0, 1), there.narrow(dimension, 0, 1)
    with torch.no_grad():
        here.copy_(there)


def optimizer_misfits(name: str, kind: str, saved: Mapping[str, Any], live: torch.optim.Optimizer) -> list[str]:
    """Every reason why an optimizer cannot take this state.

    Args:
        kind: the class that it came from; empty where the checkpoint does not say.
    """
    here_kind = type(live).__name__
    if kind not in ("", here_kind):
        return [f"{name} is {kind} in the checkpoint, {here_kind} here"]
    there = [len(group["params"]) for group in saved["param_groups"]]
    here = [len(group["params"]) for group in live.param_groups]
    if there != here:
        return [f"{name}: parameters per group are {there} in the checkpoint, {here} here"]
    found = []
    for index, parameter, group in _parameters(saved, live):
        state = saved["state"].get(index, {})
        missing = sorted(_needed(live, group) - state.keys()) if state else []
        if missing:
            found.append(f"{name}: the checkpoint has no {', '.join(missing)} of parameter {index}")
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and key in LIKE_PARAMETER and value.shape != parameter.shape:
                found.append(
                    f"{name}: {key} of parameter {index} is {tuple(value.shape)}, not {tuple(parameter.shape)}"
                )
    return found


def _parameters(saved: Mapping[str, Any], live: torch.optim.Optimizer) -> list[tuple[Any, Any, Mapping[str, Any]]]:
    pairs = zip(saved["param_groups"], live.param_groups, strict=True)
    return [
        (index, parameter, {**mine, **its})
        for its, mine in pairs
        for index, parameter in zip(its["params"], mine["params"], strict=True)
    ]


def _own_kind(live: torch.optim.Optimizer) -> bool:
    return type(live).__module__.startswith("torch.optim.") and type(live).__name__ in NEEDED


def _needed(live: torch.optim.Optimizer, group: Mapping[str, Any]) -> set[str]:
    if not _own_kind(live):
        return set()
    return NEEDED[type(live).__name__] | ({"max_exp_avg_sq"} if group.get("amsgrad") else set())


def apply_optimizer(name: str, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give a state without misfits to an optimizer, which goes on in the very memory of it."""
    groups = []
    for there, here in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        groups.append({**{key: value for key, value in here.items() if key != "params"}, **there})
    _tell_options(name, saved["param_groups"], optimizer.param_groups)
    _tell_state(name, saved, optimizer)
    optimizer.load_state_dict({**saved, "param_groups": groups})
    _keep_types(optimizer, saved)


def _tell_options(name: str, there: list[dict[str, Any]], here: list[dict[str, Any]]) -> None:
    options = [{key for group in groups for key in group} for groups in (there, here)]
    for key in sorted(options[1] - options[0]):
        say(f"{name}: the checkpoint has no option {key}, this script's is used: {here[0].get(key)!r}")
    for key in sorted(options[0] - options[1]):
        say(f"{name}: this version of torch sets no option {key}; it is kept as it was: {there[0].get(key)!r}")


def _tell_state(name: str, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    if not _own_kind(optimizer):
        return
    known = NEEDED[type(optimizer).__name__] | SOMETIMES
    unknown = {str(key) for state in saved["state"].values() for key in state} - known
    if unknown:
        say(f"{name}: this version of torch knows no state {', '.join(sorted(unknown))}; it is kept as it was")


def _keep_types(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    # load_state_dict casts to the parameter's type; a 32-bit moment of a 16-bit parameter must stay 32-bit.
    for index, parameter, _ in _parameters(saved, optimizer):
        for key, value in saved["state"].get(index, {}).items():
            loaded = optimizer.state[parameter].get(key)
            if isinstance(value, torch.Tensor) and isinstance(loaded, torch.Tensor) and loaded.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(loaded.device)


class Owners:
    """Gives each array of a restored state to one owner as it is; a second one gets a copy of its own."""

    def __init__(self) -> None:
        self._given: dict[int, torch.Tensor] = {}  # kept, so that no other one gets the same id

    def see(self, value: Any) -> None:
        """Take note that somebody has these arrays."""
        if isinstance(value, torch.Tensor):
            self._given[id(value)] = value
        elif isinstance(value, (dict, list, tuple)):
            for item in value.values() if isinstance(value, dict) else value:
                self.see(item)

    def own(self, value: Any) -> Any:
        """The value with arrays that nobody else has."""
        if isinstance(value, torch.Tensor):
            if id(value) in self._given:
                return value.clone()
            self._given[id(value)] = value
            return value
        if isinstance(value, dict):
            return {key: self.own(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.own(item) for item in value)
        return value
