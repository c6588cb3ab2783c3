"""A run in TensorBoard and in Weights & Biases (offline) that shows each step once, however often its machine is lost.

A resumed attempt repeats the steps after its checkpoint. TensorBoard is told to forget them; W&B begins an offline
folder of its own with each attempt, so the newest one is given the whole history, which travels in the checkpoint.

    python examples/trackers_stdlib.py --steps 200 --out /tmp/trackers
    tensorboard --logdir /tmp/trackers/tensorboard
    wandb sync /tmp/trackers/wandb/latest-run

Real text, no download: a byte of the standard library's own sources is told by the four before it.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path

import torch
import wandb
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

import trainer_shim

SEEN = 4  # bytes that the model sees
MOST_TEXT = 200_000  # bytes of sources


def pieces() -> TensorDataset:
    """Every four bytes of the text, and the byte after them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(root.glob("*.py")))[:MOST_TEXT]
    windows = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().unfold(0, SEEN + 1, 1)
    return TensorDataset(windows[:, :SEEN], windows[:, SEEN])


def main() -> None:
    """Train and log each step's loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # another number of threads may change the last bits
    torch.manual_seed(2718)
    model = nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), nn.Linear(SEEN * 16, 64), nn.GELU(), nn.Linear(64, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history: dict[str, list[float]] = {"loss": []}
    loader = DataLoader(pieces(), batch_size=64, shuffle=True)

    run = trainer_shim.attach(model=model, optimizer=optimizer, loader=loader, extra=history)
    board = SummaryWriter(str(options.out / "tensorboard"), purge_step=run.step_number)
    tracker = wandb.init(project="stdlib", id=run.id, mode="offline", dir=options.out)
    for step, value in enumerate(history["loss"]):
        tracker.log({"loss": value}, step=step)
    for step, (seen, following) in run.steps(total=options.steps):
        loss = nn.functional.cross_entropy(model(seen), following)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()
        history["loss"].append(loss.item())
        board.add_scalar("loss", loss.item(), step)
        board.flush()  # what a checkpoint has behind it is never logged again
        tracker.log({"loss": loss.item()}, step=step)
        print(json.dumps({"step": step, "loss": loss.item()}), flush=True)
        run.step(loss)
    board.close()
    tracker.finish()


if __name__ == "__main__":
    main()
