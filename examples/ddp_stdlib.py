"""Several processes teach one small network to write Python, from the standard library's own sources.

DistributedDataParallel with dropout, a BatchNorm, and a DistributedSampler that shuffles: run by torchrun, on one
machine with several GPUs or none at all.

    torchrun --standalone --nproc-per-node=4 examples/ddp_stdlib.py --steps 400 --out /tmp/ddp

Given to `spotrelay submit` as the run's command, it survives its machines; the lines that do that are the same three
as for a single process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sysconfig
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import trainer_shim

CONTEXT = 64  # bytes that the model sees
BATCH = 8  # for each process
WIDTH = 96
SYMBOLS = 256  # bytes
MOST_TEXT = 600_000  # bytes of sources


def standard_library(most: int = MOST_TEXT) -> torch.Tensor:
    """The interpreter's own modules, in the order of their names, as bytes."""
    root = Path(sysconfig.get_paths()["stdlib"])
    text = bytearray()
    for path in sorted(p for p in root.glob("*.py") if p.is_file()):
        text += path.read_bytes()
        if len(text) >= most:
            break
    return torch.frombuffer(text[:most], dtype=torch.uint8)


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


class Writer(nn.Module):
    """Predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.memory = nn.GRU(WIDTH, WIDTH, num_layers=2, dropout=0.1, batch_first=True)
        self.norm = nn.BatchNorm1d(WIDTH)  # its running statistics are buffers: rank 0's count
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x, _ = self.memory(self.symbols(text))
        result: torch.Tensor = self.head(self.dropout(self.norm(x.transpose(1, 2)).transpose(1, 2)))
        return result


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, buffers included."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train; rank 0 prints a JSON line for each step and leaves the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if gpu else "gloo")
    rank = distributed.get_rank()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    torch.set_num_threads(1)  # another number of threads may change the last bits
    torch.manual_seed(314 + rank)  # every rank draws dropout and crops of its own
    model = DistributedDataParallel(Writer().to(device))  # hands rank 0's first weights to the others
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    data = Crops(standard_library())
    loader = DataLoader(data, batch_size=BATCH, sampler=DistributedSampler(data), drop_last=True)

    run = trainer_shim.attach(model=model, optimizer=optimizer, loader=loader)
    for step, (text, following) in run.steps(total=options.steps):
        loss = functional.cross_entropy(model(text.to(device)).flatten(0, 1), following.to(device).flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()
        if rank == 0:
            print(json.dumps({"step": step, "loss": loss.item()}), flush=True)
        run.step(loss)

    if rank == 0:
        result = {"digest": digest(model.module), "steps": run.step_number, "resumed_from": run.resumed_from}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "digest.json").write_text(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
