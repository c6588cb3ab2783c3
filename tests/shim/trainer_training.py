"""A Trainer in small, with everything that a lazy resume forgets."""

from __future__ import annotations

import os
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import torch
import transformers
from torch.utils.data import Dataset, IterableDataset

from tests.shim.training import Outcome, digest

CONTEXT = 16  # bytes that the model sees
SAMPLES = 38  # ten batches in an epoch
STEPS = 25

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


class Crops(Dataset[dict[str, torch.Tensor]]):
    """Pieces of a module of the standard library, each from a place that all three generators decide."""

    def __init__(self) -> None:
        text = (Path(sysconfig.get_paths()["stdlib"]) / "argparse.py").read_bytes()
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * 64 + int(torch.randint(16, ())) + random.randrange(16) + numpy.random.randint(16)
        piece = self.text[start : start + CONTEXT]
        return {"input_ids": piece, "labels": piece}


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """The same, read from a beginning that each epoch has for itself."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        crops = Crops()
        return (crops[(index + 7 * self.epoch) % SAMPLES] for index in range(SAMPLES))


class Told(transformers.TrainerCallback):
    """Calls a function when a step has ended, and keeps the losses that were logged."""

    def __init__(self, after: Callable[[int], None], outcome: Outcome) -> None:
        self.after = after
        self.outcome = outcome

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in (logs or {}):
            self.outcome.losses[state.global_step] = logs["loss"]


def build(folder: Path, stream: bool = False, **arguments: Any) -> transformers.Trainer:
    """A Trainer from fixed seeds."""
    config = transformers.GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=16, n_layer=1, n_head=2)
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": STEPS,
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "seed": 3,
        "warmup_steps": 5,
        **arguments,
    }
    settings = transformers.TrainingArguments(**given)
    transformers.set_seed(3)
    model = transformers.GPT2LMHeadModel(config)
    data: Any = Stream() if stream else Crops()
    return transformers.Trainer(model=model, args=settings, train_dataset=data, eval_dataset=Crops())


def train(resume: Callable[[Any], Any], trainer: transformers.Trainer, after: Any = lambda steps: None) -> Outcome:
    """The script: one argument more than without Spotrelay."""
    outcome = Outcome()
    trainer.add_callback(Told(after, outcome))
    trainer.train(resume_from_checkpoint=resume(trainer))
    outcome.digest = digest(trainer.model)
    outcome.seen = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    return outcome
