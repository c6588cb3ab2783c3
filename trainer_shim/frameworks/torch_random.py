"""Every random generator that a PyTorch script may draw from, in one dictionary."""

from __future__ import annotations

import random
from typing import Any

import torch

from trainer_shim.frameworks import randomness


def process_state(cuda: bool = True) -> dict[str, Any]:
    """Generators of the process: Python's, NumPy's, torch's, and those of the GPUs in use."""
    state: dict[str, Any] = {
        "python": randomness.python_state(),
        "numpy": randomness.numpy_state(),
        "torch": _bytes(torch.get_rng_state()),
    }
    if cuda and torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no annotation
        state["cuda"] = [_bytes(each) for each in torch.cuda.get_rng_state_all()]
    return state


def set_process_state(state: dict[str, Any]) -> None:
    """Put the generators of the process where `process_state` found them."""
    randomness.set_python_state(state["python"])
    randomness.set_numpy_state(state["numpy"])
    torch.set_rng_state(_tensor(state["torch"]))
    if state.get("cuda") and torch.cuda.is_available():
        for index, each in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(_tensor(each), index)


class OwnGenerators:
    """Generators that a loader, its samplers or its data set keep as attributes of their own."""

    def __init__(self, loader: Any) -> None:
        self._found: dict[str, Any] = {}
        seen: set[int] = set()
        for path, owner in _owners(loader):
            for name, value in getattr(owner, "__dict__", {}).items():
                if isinstance(value, _KINDS) and id(value) not in seen:
                    seen.add(id(value))
                    self._found[f"{path}.{name}"] = value

    def state(self) -> dict[str, Any]:
        """Where each of them is, by the path of its attribute."""
        return {path: _own_state(value) for path, value in self._found.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Put each where `state` found it; those that the script no longer has are left out."""
        for path, saved in state.items():
            if path in self._found:
                _set_own_state(self._found[path], saved)


_KINDS: tuple[type, ...] = (torch.Generator, random.Random)


def _owners(loader: Any) -> list[tuple[str, Any]]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [
        ("loader", loader),
        ("sampler", getattr(loader, "sampler", None)),
        ("batch_sampler", batch_sampler),
        ("batch_sampler.sampler", getattr(batch_sampler, "sampler", None)),
        ("dataset", getattr(loader, "dataset", None)),
    ]
    return [(path, owner) for path, owner in owners if owner is not None]


def _own_state(value: Any) -> Any:
    return _bytes(value.get_state()) if isinstance(value, torch.Generator) else randomness.python_state(value)


def _set_own_state(value: Any, state: Any) -> None:
    if isinstance(value, torch.Generator):
        value.set_state(_tensor(state))
    else:
        randomness.set_python_state(state, value)


def _bytes(state: torch.Tensor) -> bytes:
    return bytes(state.cpu().numpy().tobytes())


def _tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
