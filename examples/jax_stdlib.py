"""A small transformer in plain JAX that learns Python from the standard library's own sources.

Real text, no download: the modules that this interpreter ships, byte by byte. Parameters, optimizer state and the
key of the dropout are one tree, which each step takes (and may overwrite) and makes anew.

    python examples/jax_stdlib.py --steps 200 --out /tmp/jax

Run by `spotrelay submit` it survives its machines; run as above it trains just the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import optax

import trainer_shim

CONTEXT = 64  # bytes that the model sees
BATCH = 8
WIDTH = 64
HEADS = 4
LAYERS = 2
MOST_TEXT = 1_000_000  # bytes of sources


class Crops:
    """Batches of pieces of the text, in another order in each epoch."""

    def __init__(self) -> None:
        root = Path(sysconfig.get_paths()["stdlib"])
        text = b"".join(path.read_bytes() for path in sorted(root.glob("*.py")))[:MOST_TEXT]
        self.text = numpy.frombuffer(text, numpy.uint8).astype(numpy.int32)
        self.random = numpy.random.default_rng(2718)

    def __iter__(self) -> Iterator[numpy.ndarray[Any, Any]]:
        starts = self.random.permutation(len(self.text) // CONTEXT - 1) * CONTEXT
        for first in range(0, len(starts) - BATCH, BATCH):
            yield numpy.stack([self.text[start : start + CONTEXT + 1] for start in starts[first : first + BATCH]])


def initial(key: jax.Array) -> dict[str, Any]:
    """Parameters, small and random."""
    shapes = {"symbols": (256, WIDTH), "places": (CONTEXT, WIDTH), "head": (WIDTH, 256)}
    for layer in range(LAYERS):
        inner = {"mix": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
        shapes |= {f"{layer}/{name}": shape for name, shape in inner.items()}
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.05 * jax.random.normal(each, shape) for each, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def normed(x: jax.Array) -> jax.Array:
    """Each vector at length one, times the root of its size."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def logits(params: dict[str, Any], text: jax.Array, key: jax.Array) -> jax.Array:
    """What may come next at each place of the text."""
    x = params["symbols"][text] + params["places"]
    x = jnp.where(jax.random.bernoulli(key, 0.9, x.shape), x / 0.9, 0.0)
    for layer in range(LAYERS):
        mixed = (normed(x) @ params[f"{layer}/mix"]).reshape(*text.shape, 3, HEADS, WIDTH // HEADS)
        seen = jax.nn.dot_product_attention(mixed[:, :, 0], mixed[:, :, 1], mixed[:, :, 2], is_causal=True)
        x = x + seen.reshape(x.shape) @ params[f"{layer}/out"]
        x = x + jax.nn.gelu(normed(x) @ params[f"{layer}/up"]) @ params[f"{layer}/down"]
    return normed(x) @ params["head"]


def mean_loss(params: dict[str, Any], batch: jax.Array, key: jax.Array) -> jax.Array:
    """Cross-entropy with the next byte."""
    found = logits(params, batch[:, :-1], key)
    return optax.softmax_cross_entropy_with_integer_labels(found, batch[:, 1:]).mean()


def digest(tree: Any) -> str:
    """SHA-256 over every named array of the tree."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        value = numpy.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        found.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}\n".encode() + value.tobytes())
    return found.hexdigest()


def main() -> None:
    """Train, print a JSON line for each step, and leave the digest of the state in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, 10, max(options.steps, 11))),
    )

    @partial(jax.jit, donate_argnums=0)
    def update(state: dict[str, Any], batch: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        key, used = jax.random.split(state["key"])
        loss, gradients = jax.value_and_grad(mean_loss)(state["params"], batch, used)
        changes, kept = optimizer.update(gradients, state["optimizer"], state["params"])
        return {"params": optax.apply_updates(state["params"], changes), "optimizer": kept, "key": key}, loss

    first, key = jax.random.split(jax.random.key(2718))
    params = initial(first)
    run = trainer_shim.attach(state={"params": params, "optimizer": optimizer.init(params), "key": key}, loader=Crops())
    for step, batch in run.steps(total=options.steps):
        state, loss = update(run.state, batch)
        print(json.dumps({"step": step, "loss": float(loss)}), flush=True)
        run.step(loss, state=state)

    result = {"digest": digest(run.state), "steps": run.step_number, "resumed_from": run.resumed_from}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "digest.json").write_text(json.dumps(result) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
