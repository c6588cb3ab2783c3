"""A small GPT that learns Python from the standard library's own sources.

Real text, no download: every module that this interpreter ships, byte by byte. With dropout, a
BatchNorm, a shuffling DataLoader whose two workers draw random crops, a warm-up schedule and
gradient clipping, so that anything which a resume forgets shows in the digest of the final weights.

    python examples/gpt_stdlib.py --steps 400 --out /tmp/gpt

Run by `spotrelay submit` it survives its machines; run as above it trains just the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import trainer_shim

CONTEXT = 128  # bytes that the model sees
BATCH = 8
WIDTH = 192
HEADS = 6
LAYERS = 5
SYMBOLS = 256  # bytes
MOST_TEXT = 6_000_000  # bytes of sources
WARM_UP = 40  # steps


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


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.before_feed = nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (x.shape[0], x.shape[1], HEADS, WIDTH // HEADS)
        query, key, value = (
            part.view(shape).transpose(1, 2) for part in self.mix(self.before_attention(x)).chunk(3, dim=-1)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.out(seen.transpose(1, 2).reshape(x.shape)))
        result: torch.Tensor = x + self.feed(self.before_feed(x))
        return result


class Gpt(nn.Module):
    """Predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.BatchNorm1d(WIDTH)  # its running statistics are buffers: a lazy resume loses them
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        places = torch.arange(text.shape[1], device=text.device)
        x = self.blocks(self.dropout(self.symbols(text) + self.places(places)))
        result: torch.Tensor = self.head(self.norm(x.transpose(1, 2)).transpose(1, 2))
        return result


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, buffers included."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train, print a JSON line for each step, and leave the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    torch.set_num_threads(1)  # another number of threads may change the last bits
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(2718)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(step / WARM_UP, 0.55 + 0.45 * math.cos(math.pi * min(step / options.steps, 1.0))),
    )
    loader = DataLoader(Crops(standard_library()), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2)

    run = trainer_shim.attach(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    for step, (text, following) in run.steps(loader, total=options.steps):
        loss = functional.cross_entropy(model(text).flatten(0, 1), following.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        print(json.dumps({"step": step, "loss": loss.item()}), flush=True)
        run.step(loss)

    result = {"digest": digest(model), "steps": run.step_number, "resumed_from": run.resumed_from}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digest.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
