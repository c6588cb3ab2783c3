"""A small GPT under FSDP2 that learns Python from the standard library's own sources.

Weights and optimizer state are sharded over the processes. Each of them saves its own pieces, and another number of
processes may go on from what these have saved.

    torchrun --standalone --nproc-per-node 2 examples/fsdp_stdlib.py --steps 60 --out /tmp/fsdp

Given to `spotrelay submit` as the run's command it survives its machines; run as above it trains just the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sysconfig
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import trainer_shim

CONTEXT = 64  # bytes that the model sees
BATCH = 4  # for each process
WIDTH = 96
SYMBOLS = 256  # bytes


def standard_library(most: int = 2_000_000) -> torch.Tensor:
    """The interpreter's own modules, in the order of their names, as bytes."""
    root = Path(sysconfig.get_paths()["stdlib"])
    text = bytearray()
    for path in sorted(p for p in root.glob("*.py") if p.is_file()):
        text += path.read_bytes()
        if len(text) >= most:
            break
    return torch.frombuffer(text[:most], dtype=torch.uint8)


class Gpt(nn.Module):
    """Predicts the next byte of each byte, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.1, functional.gelu, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.symbols(text) + self.places.weight[: text.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1], device=text.device)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        result: torch.Tensor = self.head(x.flatten(0, 1))
        return result


class Crops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pieces of the text; each begins at a random place within its own stretch."""

    def __init__(self, text: torch.Tensor) -> None:
        self.text = text

    def __len__(self) -> int:
        return (len(self.text) - CONTEXT - 1) // (2 * CONTEXT)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = index * 2 * CONTEXT + int(torch.randint(CONTEXT, ()))
        piece = self.text[start : start + CONTEXT + 1].long()
        return piece[:-1], piece[1:]


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, put together from all processes."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        found.update(f"{name} {whole.dtype} {tuple(whole.shape)}\n".encode())
        found.update(whole.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train, print a JSON line for each step, and leave the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    gpu = torch.cuda.is_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    rank = dist.get_rank()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device = "cuda" if gpu else "cpu"
    torch.set_num_threads(1)  # another number of threads may change the last bits
    torch.manual_seed(2718)  # the same first weights everywhere
    model = Gpt().to(device)
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    torch.manual_seed(314 + rank)  # dropout and crops of each process's own
    data = Crops(standard_library())
    loader = DataLoader(data, batch_size=BATCH, sampler=DistributedSampler(data), drop_last=True)

    run = trainer_shim.attach(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    for step, (text, following) in run.steps(total=options.steps):
        loss = functional.cross_entropy(model(text.to(device)), following.to(device).flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()
        scheduler.step()
        if rank == 0:
            print(json.dumps({"step": step, "loss": loss.item()}), flush=True)
        run.step(loss)

    result = {"digest": digest(model), "steps": run.step_number, "resumed_from": run.resumed_from}
    if rank == 0:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "digest.json").write_text(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
