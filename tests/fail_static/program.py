"""The training of the fail-static tests: tiny, slow on purpose, and it writes down each step for whoever looks from
outside. It ends when a file appears.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainer_shim

STEP_S = 0.1


def main() -> None:
    """Train until told to stop."""
    torch.set_num_threads(1)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(torch.ones(64, 4), torch.zeros(64, 1)), batch_size=8)
    run = trainer_shim.attach(model=model, optimizer=optimizer, loader=loader)
    with Path(os.environ["STEPS"]).open("a", buffering=1) as steps:
        for number, (features, wanted) in run.steps(total=1_000_000):
            loss = nn.functional.mse_loss(model(features), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss.item())
            steps.write(f"{time.time()} {os.getpid()} {number}\n")
            if Path(os.environ["ENOUGH"]).exists():
                break
            time.sleep(STEP_S)


if __name__ == "__main__":
    main()
