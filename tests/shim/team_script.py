"""Training on several ranks, in small: DistributedDataParallel, dropout, batch norm, a shuffled DistributedSampler.

Rank 0 leaves a JSON file behind when it comes to its end: every rank's losses and samples, and the weights' digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import trainer_shim
from spotrelay.core.checkpoint import newest_promoted
from tests.shim.training import digest
from tests.shim.world import eventually

SAMPLES = 58


class Noisy(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """Samples augmented from all three random generators of whoever loads them."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        noise = torch.randn(8) + random.random() + float(numpy.random.rand())
        return noise + index, torch.tensor(index % 3), index


def main(arguments: dict[str, Any]) -> None:
    """Train as the arguments say: total, out, and what a rank does after a step."""
    if arguments.get("strangers"):
        trainer_shim.attach(model=nn.Linear(2, 2))
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    random.seed(rank)
    numpy.random.seed(rank)
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 40), nn.Linear(40, 3)
    )
    torch.manual_seed(100 + rank)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    data = Noisy()
    loader = DataLoader(data, batch_size=3, sampler=DistributedSampler(data), num_workers=arguments.get("workers", 0))
    mine: dict[str, Any] = {"seen": [], "losses": []}

    extra: Any = [] if arguments.get("misfit") == rank else mine

    run = trainer_shim.attach(model=wrapped, optimizer=optimizer, scheduler=scheduler, loader=loader, extra=extra)
    for _, (inputs, wanted, indices) in run.steps(total=arguments["total"]):
        loss = nn.functional.cross_entropy(wrapped(inputs), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        optimizer.step()
        run.step(float("nan") if [rank, run.step_number + 1] in arguments.get("bad", []) else loss)
        scheduler.step()
        mine["seen"].append([int(index) for index in indices])
        mine["losses"].append(loss.item())
        _after(arguments, rank, run, model)
    run.close()

    everybody: list[Any] = [None] * distributed.get_world_size()
    # only rank 0's: the buffers of the others are what their own last batch made of them, and count for nothing
    weights = hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in model.parameters())).hexdigest()
    told = {**mine, "weights": weights, "digest": digest(model) if rank == 0 else ""}
    distributed.all_gather_object(everybody, told)
    if rank == 0:
        outcome = {"ranks": everybody, "resumed_from": run.resumed_from}
        Path(arguments["out"]).write_text(json.dumps(outcome))
    distributed.destroy_process_group()


def _after(arguments: dict[str, Any], rank: int, run: Any, model: nn.Module) -> None:
    steps = run.step_number + 1
    if rank == 0:
        with Path(arguments["out"] + ".steps").open("a") as lines:
            lines.write(f"{steps}\n")
    if arguments.get("drift") == [rank, steps]:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
    if arguments.get("terminate") == [rank, steps]:
        os.kill(os.getpid(), signal.SIGTERM)
    if arguments.get("settle") in (steps, "always"):
        flight = run._session._saver.flight
        assert flight is None or flight.over.wait(20)
    if rank == 0 and steps == arguments.get("promoted"):
        store = run._session._ports.store
        eventually(lambda: newest_promoted(store.checkpoints(os.environ["SPOTRELAY_RUN"])), "a checkpoint is promoted")
    if arguments.get("long") == [rank, steps]:
        store = run._session._ports.store
        released = lambda: store.read_run(os.environ["SPOTRELAY_RUN"]).lease.holder is None  # noqa: E731
        eventually(released, "the lease is given back in the middle of the step")
    if arguments.get("give_up") and steps == arguments["total"]:
        os._exit(0)
    if arguments.get("stop") == [rank, steps]:
        raise RuntimeError("this rank's script failed")
