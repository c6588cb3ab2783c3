"""A GPT-2 whose weights stay as they are, and small LoRA matrices beside them that learn Python, with PEFT.

Real text, no download: the modules that this interpreter ships, byte by byte; the frozen model is a random one, which
in earnest would be a pretrained one. Each checkpoint uploads what has changed: the matrices, and no frozen weight.

    python examples/lora_stdlib.py --steps 100 --out /tmp/lora

Run by `spotrelay submit` it survives its machines; run as above it trains just the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

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


def digest(model: nn.Module) -> str:
    """SHA-256 over every named tensor of the model, the frozen ones included."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train and leave the digest of the weights in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    torch.set_num_threads(1)  # another number of threads may change the last bits
    set_seed(2718)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=128, n_layer=4, n_head=4))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1, fan_in_fan_out=True))
    arguments = TrainingArguments(
        output_dir=str(options.out),
        max_steps=options.steps,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=10,
        save_strategy="no",  # the run's checkpoints are elsewhere
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=2718,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Crops())
    trainer.train(resume_from_checkpoint=trainer_shim.resume(trainer))

    result = {"digest": digest(model), "steps": trainer.state.global_step}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digest.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
