"""A training script for JAX in small, with everything that a lazy resume forgets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import optax
from flax import nnx

from tests.shim.training import Outcome

STEPS = 24
BATCHES = 7  # in an epoch

jax.config.update("jax_num_cpu_devices", 4)


class Batches:
    """A shuffled loader as one writes it oneself, which draws from every generator that there is."""

    def __init__(self) -> None:
        self.order = numpy.random.default_rng(9)
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        for index in self.order.permutation(BATCHES):
            self.read += 1
            noise = numpy.random.rand() + random.random()
            yield numpy.full((4, 8), index + noise, numpy.float32) + self.order.normal(size=8).astype(numpy.float32)


SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 5, STEPS)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(SCHEDULE))


def initial() -> dict[str, Any]:
    """A state with every kind of leaf that checkpoints know, from fixed seeds."""
    random.seed(4)
    numpy.random.seed(5)
    first, second, key = jax.random.split(jax.random.key(3), 3)
    params = {
        "in": jax.random.normal(first, (8, 16)),
        "out": {"w": jax.random.normal(second, (16, 3)), "b": jnp.zeros(3, jnp.bfloat16)},
    }
    return {
        "params": params,
        "optimizer": OPTIMIZER.init(params),
        "key": key,
        "raw": jax.random.PRNGKey(7),
        "ema": jnp.ones((16, 3), jnp.float8_e4m3fn),
        "scale": jnp.asarray(1.0),  # of a weak type
        "best": jnp.asarray(jnp.inf),
        "mask": jnp.where(jnp.tri(3) > 0, 0.0, -jnp.inf),
        "seen": numpy.zeros(2, numpy.int64),
        "phase": 1.5,
        "nothing": None,
    }


def loss_of(params: Any, batch: Any, key: Any, scale: Any) -> Any:
    hidden = jax.nn.relu(batch @ params["in"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.8, hidden.shape), hidden, 0.0)
    out = hidden @ params["out"]["w"] + params["out"]["b"]
    return jnp.mean((scale.astype(jnp.bfloat16) * out) ** 2)


def _update(state: dict[str, Any], batch: Any) -> tuple[dict[str, Any], Any]:
    key, used = jax.random.split(state["key"])
    raw, _ = jax.random.split(state["raw"])
    loss, gradients = jax.value_and_grad(loss_of)(state["params"], batch, used, state["scale"])
    changes, optimizer = OPTIMIZER.update(gradients, state["optimizer"], state["params"])
    return {
        **state,
        "params": optax.apply_updates(state["params"], changes),
        "optimizer": optimizer,
        "key": key,
        "raw": raw,
        "scale": state["scale"] * 0.99,
        "best": jnp.minimum(state["best"], loss),
    }, loss


update = jax.jit(_update, donate_argnums=0)


def digest(tree: Any) -> str:
    """Of every leaf, its name, its type and whether that is weak."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        weak = isinstance(leaf, jax.Array) and leaf.weak_type
        value = numpy.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape} {weak}".encode() + value.tobytes())
    return found.hexdigest()


def train(
    attach: Callable[..., Any],
    state: dict[str, Any],
    loader: Any,
    after: Callable[[Any, int], None] = lambda run, steps: None,
) -> Outcome:
    """The loop of the script; `after` is called at the very end of each step's body."""
    run = attach(state=state, loader=loader, extra={"steps": []})
    outcome = Outcome()
    for step, batch in run.steps(total=STEPS):
        state, loss = update(run.state, batch)
        outcome.losses[step] = float(loss)
        run.extra["steps"].append(step)
        run.step(loss, state=state)
        after(run, step + 1)
    run.close()
    outcome.digest = digest(run.state)
    outcome.seen = run.extra["steps"]
    return outcome


class Net(nnx.Module):
    """With dropout, whose generator is part of it, and running statistics."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


@nnx.jit
def nnx_update(model: Net, optimizer: Any, batch: Any) -> Any:
    """One step, in place."""
    loss, gradients = nnx.value_and_grad(lambda model: jnp.mean(model(batch) ** 2))(model)
    optimizer.update(model, gradients)
    return loss


def nnx_parts() -> tuple[Net, Any]:
    """A module and its optimizer, from fixed seeds."""
    random.seed(4)
    numpy.random.seed(5)
    model = Net(nnx.Rngs(0))
    return model, nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)


def nnx_train(
    attach: Callable[..., Any], parts: Any, after: Callable[[Any, int], None] = lambda run, steps: None
) -> Outcome:
    """The loop of a script with objects that change in place."""
    model, optimizer = parts
    run = attach(model=model, optimizer=optimizer, loader=Batches())
    outcome = Outcome()
    for step, batch in run.steps(total=STEPS):
        loss = nnx_update(model, optimizer, batch)
        outcome.losses[step] = float(loss)
        run.step(loss)
        after(run, step + 1)
    run.close()
    outcome.digest = digest([nnx.state(model), nnx.state(optimizer)])
    return outcome
