"""A Trainer on several ranks, in small: dropout, batch norm, crops from each rank's own generators.

Rank 0 leaves a JSON file behind when it comes to its end: what every rank has seen and where its generators are.
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
import transformers
from torch import distributed, nn

import trainer_shim
from tests.shim.trainer_training import Crops, Stream
from tests.shim.training import digest


class Net(nn.Module):
    """Guesses bytes; keeps what it was given and what it lost."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(256, 12)
        self.norm = nn.BatchNorm1d(12)
        self.body = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Dropout(0.2))
        self.head = nn.Linear(24, 256)
        self.seen: list[list[float]] = []

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.norm(self.symbols(input_ids).flatten(0, 1))
        logits = self.head(self.body(x))
        loss = nn.functional.cross_entropy(logits, labels.flatten())
        if self.training:
            weights = torch.arange(input_ids.numel())
            self.seen.append([int((input_ids.flatten() * weights).sum()), loss.item()])
        return {"loss": loss, "logits": logits}


class Watched(transformers.TrainerCallback):  # type: ignore[misc]  # looked at as untyped, for speed
    """Writes down what each step has seen, and does what the arguments ask for after it."""

    def __init__(self, arguments: dict[str, Any], model: Net) -> None:
        self.arguments = arguments
        self.model = model
        self.steps: dict[str, list[list[float]]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps[str(state.global_step)] = self.model.seen
        self.model.seen = []
        if args.process_index == 0:
            with Path(self.arguments["out"] + ".steps").open("a") as lines:
                lines.write(f"{state.global_step}\n")
        if self.arguments.get("terminate") == [args.process_index, state.global_step]:
            os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: dict[str, Any]) -> None:
    """Train as the arguments say: total, out, what a rank does after a step, and the Trainer's own in `trainer`."""
    wishes = dict(arguments.get("trainer", {}))
    data: Any = Stream() if wishes.pop("stream", False) else Crops()
    given = {
        "output_dir": arguments["out"] + ".trainer",
        "per_device_train_batch_size": 4,
        "max_steps": arguments["total"],
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "seed": 3,
        "data_seed": 5,
        "warmup_steps": 5,
        "learning_rate": 1e-2,
        **wishes,
    }
    settings = transformers.TrainingArguments(**given)
    transformers.set_seed(3)
    model = Net()
    watched = Watched(arguments, model)
    trainer = transformers.Trainer(
        model=model, args=settings, train_dataset=data, eval_dataset=Crops(), callbacks=[watched]
    )
    rank = distributed.get_rank()
    random.seed(rank)
    numpy.random.seed(rank)
    torch.manual_seed(100 + rank)

    trainer.train(resume_from_checkpoint=trainer_shim.resume(trainer))

    mine = {
        "steps": watched.steps,
        "generators": _generators(),
        "logged": [[each["step"], each["loss"]] for each in trainer.state.log_history if "loss" in each],
        "first": trainer.state.is_world_process_zero,
        "digest": digest(model) if rank == 0 else "",  # with the buffers, which are rank 0's
    }
    everybody: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everybody, mine)
    if rank == 0:
        Path(arguments["out"]).write_text(json.dumps({"ranks": everybody}))


def _generators() -> str:
    found = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    found.update(repr((random.getstate(), numpy.random.get_state()[1].tolist())).encode())  # type: ignore[index]  # legacy
    return found.hexdigest()
