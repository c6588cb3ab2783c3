"""A small GPT under FSDP2 that learns Python from the standard library's own sources.

Weights and optimizer state are sharded over the processes; torch.distributed.checkpoint saves and loads them,
and another number of processes may go on from what these have saved.

    torchrun --nproc-per-node 2 examples/fsdp_stdlib.py --steps 60 --out /tmp/fsdp

Run by `spotrelay submit` it survives its machines; run as above it trains just the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional

from trainer_shim.frameworks import torch_dcp

CONTEXT = 64  # bytes that the model sees
BATCH = 8  # of all processes together
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
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        result: torch.Tensor = self.head(x.flatten(0, 1))
        return result


class Training:
    """Everything that a step changes."""

    def __init__(self, total: int) -> None:
        torch.manual_seed(2718)
        self.model = Gpt()
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)

    def state(self) -> dict[str, Any]:
        """For torch.distributed.checkpoint: live tensors, this process's shards of them."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "scheduler": self.scheduler.state_dict()}

    def take(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        model, optimizer = state["model"], state["optimizer"]
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        self.scheduler.load_state_dict(state["scheduler"])

    def step(self, number: int, text: torch.Tensor) -> float:
        """One step; batch and dropout follow from its number, so that nothing of them has to be saved."""
        rank, ranks = dist.get_rank(), dist.get_world_size()
        draw = torch.Generator().manual_seed(number)
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=draw)[rank::ranks]
        pieces = torch.stack([text[start : start + CONTEXT + 1].long() for start in starts])
        torch.manual_seed(number * ranks + rank)
        loss = functional.cross_entropy(self.model(pieces[:, :-1]), pieces[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, put together from all processes."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        found.update(f"{name} {whole.dtype} {tuple(whole.shape)}\n".encode())
        found.update(whole.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train, print a JSON line for each step, and leave the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    torch.set_num_threads(1)  # another number of threads may change the last bits
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    text, training, first = standard_library(), Training(options.steps), 0

    attempt = torch_dcp.join()  # None outside Spotrelay
    if attempt is not None:
        found = torch_dcp.load(training.state, attempt)
        if found is not None:
            training.take(found.state)
            first = found.step
    for step in range(first, options.steps):
        loss = training.step(step, text)
        if dist.get_rank() == 0:
            print(json.dumps({"step": step, "loss": loss}), flush=True)
        if attempt is None:
            continue
        ending = attempt.ending()  # the machine goes: known to all processes after the same step
        if ending or (step + 1) % options.every == 0 or step + 1 == options.steps:
            writer = torch_dcp.SpotrelayWriter(attempt, step + 1)
            dcp.save(training.state(), storage_writer=writer)  # type: ignore[attr-defined]  # torch exports it
        if ending:
            attempt.drain()

    result = {"digest": digest(training.model), "steps": options.steps, "resumed_from": first or None}
    if dist.get_rank() == 0:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "digest.json").write_text(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
    if attempt is not None:
        attempt.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
