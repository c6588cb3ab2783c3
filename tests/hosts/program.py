"""The training of the tests of own machines: tiny, with a loss that each step before has a part in; it writes down
each step, where it was done and by which process, and ends when a file appears, or after so many steps.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainer_shim

STEP_S = 0.05


def main() -> None:
    """Train until told to stop."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    features = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(features, features.sum(1, keepdim=True)), batch_size=8, shuffle=True)
    run = trainer_shim.attach(model=model, optimizer=optimizer, loader=loader)
    enough, where = Path(os.environ["ENOUGH"]), os.environ.get("SPOTRELAY_INSTANCE", "nowhere")
    with Path(os.environ["STEPS"]).open("a", buffering=1) as steps:
        for number, (given, wanted) in run.steps(total=int(os.environ.get("TOTAL", "1000000"))):
            loss = nn.functional.mse_loss(model(given), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss.item())
            steps.write(f"{number} {loss.item()!r} {where} {os.getpid()}\n")
            if enough.exists():
                break
            time.sleep(float(os.environ.get("STEP_S", STEP_S)))


if __name__ == "__main__":
    main()
