"""What is trained and checkpointed: a small GPT with AdamW in 32 bits, on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import xxhash
from torch import nn

VOCABULARY = 8192
CONTEXT = 32  # tokens
BATCH = 2
HEADS = 8

SHAPES = {"0.1 GB": (256, 8), "0.5 GB": (512, 12), "1.5 GB": (768, 17)}  # of the state: width, layers


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = self.mix(self.before(x)).view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


class Gpt(nn.Module):
    """A GPT whose output layer is its embedding, so that every weight gets a gradient in each step."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) * 0.1 + self.places.weight
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(self.last(x), self.tokens.weight)


class Timed(torch.optim.AdamW):
    """AdamW that tells when it really begins: whatever held it back before that is a stall."""

    entered = 0.0

    def step(self, closure: Any = None) -> Any:
        self.entered = time.perf_counter()
        return super().step(closure)


@dataclass
class Lap:
    """One step, in seconds."""

    compute: float  # forward, backward and the optimizer itself
    fence: float  # what the optimizer waited for before it could begin
    boundary: float = 0.0  # what was done between this step and the next one


@dataclass
class Training:
    """A model that is trained step by step."""

    model: Gpt
    optimizer: Timed
    held_back: Callable[[], None] = field(default=lambda: None)  # called before the optimizer changes anything
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(7))

    def step(self) -> Lap:
        """Change every element of the state."""
        begun = time.perf_counter()
        tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1), generator=self.generator)
        logits = self.model(tokens[:, :-1])
        self.optimizer.zero_grad()
        self.loss = nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))
        self.loss.backward()
        computed = time.perf_counter()
        self.held_back()
        self.optimizer.step()
        ended = time.perf_counter()
        fence = self.optimizer.entered - computed
        return Lap(ended - begun - fence, fence)

    @property
    def state_bytes(self) -> int:
        """Parameters and what AdamW keeps of them."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor of the state, in one order."""
        found = [value for _, value in sorted(self.model.state_dict().items())]
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                found += [state[name] for name in sorted(state)]
        return found

    def digest(self) -> str:
        """Of every bit of the state."""
        found = xxhash.xxh3_128()
        for tensor in self.tensors():
            found.update(memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy()))
        return found.hexdigest()


def build(size: str, seed: int = 1, frozen: float = 0.0) -> Training:
    """A model of this size.

    Args:
        frozen: share of the parameters that are not trained, as in a fine-tune.
    """
    torch.manual_seed(seed)
    model = Gpt(*SHAPES[size])
    if frozen:
        _freeze(model, frozen)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Training(model, Timed(trained, lr=1e-3, fused=True))


def _freeze(model: nn.Module, share: float) -> None:
    whole = sum(parameter.numel() for parameter in model.parameters())
    left = whole * (1 - share)
    for parameter in reversed(list(model.parameters())):
        parameter.requires_grad = parameter.numel() <= left
        left -= parameter.numel() if parameter.requires_grad else 0
