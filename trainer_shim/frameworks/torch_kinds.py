"""Which tensors a checkpoint can hold, and what they are in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from trainer_shim.frameworks.torch_sparse import taken_apart
from trainer_shim.tree import Array, Composite


def described(value: Any, path: str, group: Callable[[Any, str], str]) -> Array | Composite | None:
    """What a tensor is in a checkpoint; None for anything else.

    Args:
        group: says which arrays an array may share a shard with.

    Raises:
        InvalidInput: it is one that no checkpoint can hold; names its path.
    """
    if not isinstance(value, torch.Tensor):
        return None
    kind = value.dtype
    dtype = name_of(kind)
    if value.is_meta or value.is_quantized or not _can_be_copied(kind):
        what = "a meta tensor" if value.is_meta else f"a quantized or packed tensor ({dtype})"
        raise InvalidInput(f"{path} is {what}: a checkpoint cannot hold it. Materialise it before attach()")
    if value.layout is not torch.strided:
        apart = taken_apart(value)
        if apart is None:
            raise InvalidInput(f"{path} is a {value.layout} tensor: a checkpoint cannot hold it")
        return apart
    shape = tuple(value.shape)
    where = (value.data_ptr(), value.device, kind, shape, value.stride(), value.is_conj(), value.is_neg())
    return Array(dtype, shape, value.nbytes, where, group(value, path))


def one_run_of_bytes(value: torch.Tensor) -> bool:
    """Whether its elements lie on the CPU one behind the other, and not their conjugates or negatives."""
    return value.is_cpu and value.is_contiguous() and not value.is_conj() and not value.is_neg()


@cache
def name_of(dtype: torch.dtype) -> str:
    """The type's name in a checkpoint."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: Any) -> torch.dtype:
    """The type of this name.

    Raises:
        InvalidInput: this version of torch has none.
    """
    kind = getattr(torch, name, None) if type(name) is str else None
    if not isinstance(kind, torch.dtype):
        raise InvalidInput(f"this version of torch has no type {str(name)[:80]!r}")
    return kind


def stand_in(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of this type and shape without memory.

    Raises:
        InvalidInput: there is no such tensor.
    """
    try:
        return torch.empty(shape, dtype=dtype_of(dtype), device="meta")
    except RuntimeError as error:
        raise InvalidInput(f"no tensor has the shape {str(shape)[:80]}") from error


@cache
def _can_be_copied(kind: torch.dtype) -> bool:
    try:
        torch.empty(1, dtype=kind).copy_(torch.empty(1, dtype=kind))
    except RuntimeError:
        return False
    return True
