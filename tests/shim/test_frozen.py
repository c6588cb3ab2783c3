"""Fine-tuning with frozen weights: after the first verified checkpoint, what does not change is not uploaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax
import peft
import pytest
import transformers
from flax import nnx

import trainer_shim
from tests.shim.test_bit_for_bit import Killed
from tests.shim.test_huggingface import callback
from tests.shim.trainer_training import CONTEXT, Crops, train
from tests.shim.training import Outcome
from tests.shim.world import World

STEPS = 9


def build(folder: Path) -> transformers.Trainer:
    """A Trainer of a PEFT model, 99 % of whose parameters are frozen, from fixed seeds."""
    transformers.set_seed(3)
    config = transformers.GPT2Config(vocab_size=256, n_positions=CONTEXT, n_embd=256, n_layer=4, n_head=2)
    adapters = peft.LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1, fan_in_fan_out=True)
    model = peft.get_peft_model(transformers.GPT2LMHeadModel(config), adapters)
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=STEPS,
        logging_steps=4,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=3,
        warmup_steps=2,
    )
    return transformers.Trainer(model=model, args=settings, train_dataset=Crops())


def uploaded(world: World) -> list[int]:
    """Bytes of shards that each checkpoint uploaded itself, oldest first."""
    found: list[int] = []
    known: set[tuple[str, str]] = set()
    for checkpoint in reversed(world.checkpoints):
        fresh = [where for where in world.shards(checkpoint) if where not in known]
        known.update(fresh)
        found.append(sum(world.objects.head(key, version).size for key, version in fresh))
    return found


def settled(world: World, session: Any) -> None:
    """Let the save under way end, and the control plane verify it."""
    flight = session._saver.flight
    if flight is not None:
        assert flight.over.wait(20)
    world.verify()


def followed(world: World, generation: int, trainer: Any, last: int = STEPS) -> Outcome:
    """Train with every checkpoint verified before the next one; lost after step `last`."""

    def after(done: int) -> None:
        settled(world, callback(trainer)._session)
        if done > last:
            raise Killed

    return train(lambda trainer: world.resume(generation, trainer), trainer, after)


def test_a_trainer_with_adapters_uploads_only_what_changes_and_ends_in_the_same_bits(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    expected = train(trainer_shim.resume, build(tmp_path))
    world.submit()
    trainer = build(tmp_path)
    with pytest.raises(Killed):
        followed(world, 1, trainer, 4)
    world.hand_over(2)

    outcome = followed(world, 2, build(tmp_path))

    trained, parameters = trainer.model.get_nb_trainable_parameters()
    first, *others = uploaded(world)
    assert trained / parameters < 0.01
    assert [each.commit.generation for each in world.checkpoints].count(2) > 2
    assert max(others) <= 0.02 * first
    assert outcome.digest == expected.digest


class Adapted(nnx.Module):
    """A frozen layer with an adapter."""

    def __init__(self) -> None:
        self.layer = nnx.LoRALinear(512, 512, lora_rank=1, rngs=nnx.Rngs(0))


def nnx_steps(world: World, generation: int, total: int) -> Adapted:
    model = Adapted()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.LoRAParam)
    run = world.attach(generation, model=model, optimizer=optimizer)
    for _, batch in run.steps([jnp.ones((2, 512))], total=total):
        settled(world, run._session)
        trained = nnx.DiffState(0, nnx.LoRAParam)
        gradients = nnx.grad(lambda model, batch=batch: jnp.mean(model.layer(batch) ** 2), argnums=trained)(model)
        optimizer.update(model, gradients)
        run.step(0.1)
    run.close()
    world.verify()
    return model


def test_frozen_parameters_of_a_flax_module_are_not_uploaded_again(world: World) -> None:
    world.submit()
    nnx_steps(world, 1, 4)
    world.hand_over(2)

    nnx_steps(world, 2, 7)

    first, *others = uploaded(world)
    assert len(others) >= 5
    assert max(others) <= 0.02 * first


def test_a_branch_of_a_tree_that_stays_the_same_is_not_uploaded_again(world: World) -> None:
    world.submit()
    state = {"base": jnp.ones((512, 512)), "small": jnp.zeros(64)}
    run = world.attach(1, state=state)
    for step, _ in run.steps([0], total=5):
        settled(world, run._session)
        run.step(0.1, state={**run.state, "small": run.state["small"] + step})
    run.close()

    first, *others = uploaded(world)
    assert len(others) >= 3
    assert max(others) <= 0.02 * first
