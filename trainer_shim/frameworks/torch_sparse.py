"""Sparse tensors as the arrays that they are made of."""

from __future__ import annotations

from typing import Any

import torch

from spotrelay.core.errors import InvalidInput
from trainer_shim.tree import Composite

COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def taken_apart(value: torch.Tensor) -> Composite | None:
    """A sparse tensor's parts; None for any other."""
    kind = str(value.layout).removeprefix("torch.")
    value = value.detach()
    if value.layout is torch.sparse_coo:
        whole: dict[str, Any] = {"coalesced": value.is_coalesced(), "shape": list(value.shape)}
        return Composite(kind, {**whole, "indices": value._indices(), "values": value._values()})
    if value.layout in COMPRESSED:
        rows, columns = (getattr(value, name)() for name in COMPRESSED[value.layout])
        return Composite(kind, {"shape": list(value.shape), "first": rows, "second": columns, "values": value.values()})
    return None


def composed(kind: str, parts: dict[str, Any]) -> torch.Tensor:
    """The sparse tensor that was taken apart; its numbers are looked at, since they come from outside.

    Raises:
        InvalidInput: the parts make none.
    """
    layout = getattr(torch, kind, None)
    try:
        if layout is torch.sparse_coo:
            return torch.sparse_coo_tensor(
                parts["indices"],
                parts["values"],
                tuple(parts["shape"]),
                is_coalesced=parts["coalesced"],
                check_invariants=not parts["values"].is_meta,
            )
        if layout in COMPRESSED:
            return torch.sparse_compressed_tensor(
                parts["first"],
                parts["second"],
                parts["values"],
                tuple(parts["shape"]),
                layout=layout,
                check_invariants=not parts["values"].is_meta,
            )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InvalidInput(f"a {kind} tensor cannot be made of its parts ({error})") from error
    raise InvalidInput(f"this version of torch knows no {kind} tensor")
