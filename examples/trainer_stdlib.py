"""A small GPT-2 that learns Python from the standard library's own sources, with Hugging Face's Trainer.

Real text, no download: the modules that this interpreter ships, byte by byte.

    python examples/trainer_stdlib.py --steps 200 --out /tmp/trainer
    torchrun --standalone --nproc-per-node=2 examples/trainer_stdlib.py --steps 200 --out /tmp/trainer

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
from torch import nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

import trainer_shim

CONTEXT = 64  # bytes that the model sees
MOST_TEXT = 1_000_000  # bytes of sources


class Crops(Dataset[dict[str, torch.Tensor]]):
    """Pieces of the text; each begins at a random place within its own stretch."""

    def __init__(self) -> None:
        root = Path(sysconfig.get_paths()["stdlib"])
        text = b"".join(path.read_bytes() for path in sorted(root.glob("*.py")))[:MOST_TEXT]
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.text) // (2 * CONTEXT) - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * 2 * CONTEXT + int(torch.randint(CONTEXT, ()))
        piece = self.text[start : start + CONTEXT].long()
        return {"input_ids": piece, "labels": piece}


class Lines(TrainerCallback):
    """Prints a JSON line for each step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            print(json.dumps({"step": state.global_step - 1}), flush=True)


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, buffers included."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train and leave the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    torch.set_num_threads(1)  # another number of threads may change the last bits
    set_seed(2718)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4))
    arguments = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        dataloader_num_workers=2,
        learning_rate=1e-3,
        warmup_steps=10,
        logging_steps=10,
        save_strategy="no",  # the run's checkpoints are elsewhere
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=2718,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Crops(), callbacks=[Lines()])
    trainer.train(resume_from_checkpoint=trainer_shim.resume(trainer))

    if not trainer.is_world_process_zero():
        return
    result = {"digest": digest(model), "steps": trainer.state.global_step}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digest.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
