"""Every random generator that a PyTorch script may draw from, in one dictionary."""

from __future__ import annotations

from typing import Any

import torch

from trainer_shim.frameworks import randomness


def process_state(cuda: bool = True) -> dict[str, Any]:
    """Generators of the process: Python's, NumPy's, torch's, and those of the GPUs in use."""
    state = {**randomness.process_state(), "torch": _bytes(torch.get_rng_state())}
    if cuda and torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no annotation
        state["cuda"] = [_bytes(each) for each in torch.cuda.get_rng_state_all()]
    return state


def set_process_state(state: dict[str, Any]) -> None:
    """Put the generators of the process where `process_state` found them."""
    randomness.set_process_state(state)
    torch.set_rng_state(_tensor(state["torch"]))
    if state.get("cuda") and torch.cuda.is_available():
        for index, each in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(_tensor(each), index)


def process_state_of_cpu() -> dict[str, Any]:
    """`process_state` without GPUs, whose generators no loader draws from."""
    return process_state(cuda=False)


class OwnGenerators(randomness.OwnGenerators):
    """Knows torch's generators too."""

    def knows(self, value: Any) -> bool:
        """See `randomness.OwnGenerators.knows`."""
        return isinstance(value, torch.Generator) or super().knows(value)

    def state_of(self, value: Any) -> Any:
        """See `randomness.OwnGenerators.state_of`."""
        return _bytes(value.get_state()) if isinstance(value, torch.Generator) else super().state_of(value)

    def set_state_of(self, value: Any, state: Any) -> None:
        """See `randomness.OwnGenerators.set_state_of`."""
        if isinstance(value, torch.Generator):
            value.set_state(_tensor(state))
        else:
            super().set_state_of(value, state)


def _bytes(state: torch.Tensor) -> bytes:
    return bytes(state.cpu().numpy().tobytes())


def _tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
