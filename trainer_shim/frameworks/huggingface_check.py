"""Which Trainers can be followed: what is refused before anything begins, and why."""

from __future__ import annotations

import importlib
from typing import Any

import transformers

from spotrelay.core.errors import InvalidInput
from trainer_shim.voice import say

USED = ("get_train_dataloader", "_load_from_checkpoint", "_load_rng_state")  # of the Trainer, and replaced by us
INSTEAD = (
    "leave it to DistributedDataParallel, as torchrun alone does, or shard the model by fully_shard (FSDP2) in a loop "
    "of your own with trainer_shim.attach()"
)


def check(trainer: Any) -> None:
    """See that this Trainer can be followed.

    Raises:
        InvalidInput: it is none, or is set up in a way that cannot be resumed exactly; says how.
    """
    if not isinstance(trainer, transformers.Trainer):
        raise InvalidInput(f"resume({type(trainer).__qualname__}): give a transformers.Trainer")
    gone = [name for name in USED if not hasattr(trainer, name)]
    if gone or not hasattr(importlib.import_module("transformers.trainer"), "skip_first_batches"):
        raise InvalidInput(
            f"transformers {transformers.__version__} has changed in a way that the shim does not know "
            f"({', '.join(gone) or 'skip_first_batches'}): use 5.x up to the version in constraints.txt"
        )
    spread = _spread(trainer)
    if spread:
        raise InvalidInput(f"a Trainer whose model is spread by {spread} cannot be resumed: {INSTEAD}")
    if trainer.args.auto_find_batch_size:
        raise InvalidInput("auto_find_batch_size makes a run that no resume can repeat: set the batch size that fits")
    if trainer.args.ignore_data_skip:
        say("ignore_data_skip is switched off: the run goes on at the very batch")
        trainer.args.ignore_data_skip = False


def _spread(trainer: Any) -> str:
    """By what no rank has the whole model, or its own share of the batches; empty where each has."""
    if trainer.is_deepspeed_enabled:
        return "DeepSpeed"
    if trainer.is_fsdp_enabled or trainer.args.fsdp:
        return "FSDP"
    sizes = {
        "tensor parallelism": trainer.get_tp_size(),
        "context parallelism": trainer.get_cp_size(),
        "sequence parallelism": trainer.get_sp_size(),
    }
    found = ", ".join(name for name, size in sizes.items() if size > 1)
    return found or ("DistributedConfig" if trainer.is_distributed_loading_by_transformers else "")
