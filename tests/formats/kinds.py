"""A small script's state in which there is one of everything that a checkpoint can hold."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

warnings.filterwarnings("ignore", "Sparse CSR tensor support|ComplexHalf support", UserWarning)

PACKED = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")
NUMBERS = (
    "float64", "float32", "float16", "bfloat16", "complex64", "complex128", "complex32", "bool",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
)  # fmt: skip


def known(names: tuple[str, ...] = (*NUMBERS, *PACKED)) -> list[str]:
    """Those of these types that this torch has."""
    return [name for name in names if hasattr(torch, name)]


def filled(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A tensor with bits of its own; every bit pattern may occur but those of a bool."""
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(shape, dtype=kind).nbytes
    bits = torch.randint(0, 2 if dtype == "bool" else 256, (size,), generator=generator, dtype=torch.uint8)
    return bits.view(kind).reshape(shape) if size else torch.empty(shape, dtype=kind)


class Kinds(nn.Module):
    """Tied, viewed, strided, empty, scalar, sparse and in every type."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        weight = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(6, 4)
        self.last = nn.Linear(6, 4)
        self.last.weight = self.first.weight  # tied
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(4, 6, generator=weight))
            self.first.bias.fill_(seed)
            self.last.bias.fill_(-seed)
        flat = torch.randn(24, generator=weight)
        self.register_buffer("flat", flat)
        self.register_buffer("view", flat[4:16].view(3, 4))
        self.register_buffer("turned", torch.randn(5, 3, generator=weight).t())
        self.register_buffer("every_other", torch.randn(12, generator=weight)[::2])
        self.register_buffer("expanded", torch.randn(1, 3, generator=weight).expand(4, 3))
        self.register_buffer("empty", torch.empty(0, 7))
        self.register_buffer("scalar", torch.tensor(seed, dtype=torch.int64))
        for dtype in known():
            self.register_buffer(f"of_{dtype}", filled(dtype, (3, 5), seed))
        dense = torch.eye(5) * seed
        self.register_buffer("coo", dense.to_sparse())
        self.register_buffer("csr", dense.to_sparse_csr())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.first(x) + self.last(x))


def parts(seed: int) -> dict[str, Any]:
    """What such a script attaches; its optimizer has stepped `seed` times."""
    torch.manual_seed(seed)
    model = Kinds(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    inputs = torch.linspace(-1, 1, 18).reshape(3, 6)
    for _ in range(seed):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        scheduler.step()
    extra = {"best": 0.5 + seed, "seen": [1, 2, seed], "text": "über", "bytes": bytes(range(256)) * 2,
             "tensor": torch.full((3,), seed)}  # fmt: skip
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "extra": extra}


def bits(value: Any) -> Any:
    """A state in a form that is equal only when every bit is."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.layout is torch.sparse_coo:
            return ["coo", tuple(value.shape), bits(value._indices()), bits(value._values())]
        if value.layout is torch.sparse_csr:
            return ["csr", bits(value.crow_indices()), bits(value.col_indices()), bits(value.values())]
        raw = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
        return [str(value.dtype), tuple(value.shape), raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b""]
    if isinstance(value, dict):
        return {key: bits(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return value


def state(given: dict[str, Any]) -> Any:
    """Everything that a checkpoint of it has to bring back."""
    return bits({name: each.state_dict() if name != "extra" else each for name, each in given.items()})
