"""JAX: trees of arrays and Flax NNX objects come back bit for bit, on the devices where they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import pytest
import torch
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import trainer_shim
from spotrelay.core.checkpoint import Health
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import Cadence
from tests.shim.jax_training import (
    BATCHES,
    STEPS,
    Batches,
    Net,
    digest,
    initial,
    nnx_parts,
    nnx_train,
    train,
    update,
)
from tests.shim.test_bit_for_bit import Killed
from tests.shim.training import build
from tests.shim.world import World

SELDOM = Cadence(every_steps=1000)


def lost_after(world: World, steps: int, script: Any, generation: int = 1) -> int:
    """Train until this many steps are done and committed, then lose the machine; the step to resume from."""

    def after(run: Any, done: int) -> None:
        if done > steps:
            flight = run._session._saver.flight
            if flight is not None:
                assert flight.over.wait(20)
            raise Killed

    with pytest.raises(Killed):
        script(lambda **given: world.attach(generation, **given), after)
    world.hand_over(generation + 1)
    return world.checkpoints[0].commit.step


def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)
    return trainer_shim.attach


@pytest.mark.parametrize("steps", [3, BATCHES, 17], ids=lambda steps: f"after {steps} steps")
def test_a_tree_of_every_kind_of_array_ends_in_the_same_bits(
    world: World, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    expected = train(alone(monkeypatch), initial(), Batches())
    world.submit()
    resumed_at = lost_after(world, steps, lambda attach, after: train(attach, initial(), Batches(), after))

    outcome = train(lambda **given: world.attach(2, **given), initial(), Batches())

    assert 0 < resumed_at <= steps
    assert outcome.losses == {step: loss for step, loss in expected.losses.items() if step >= resumed_at}
    assert outcome.digest == expected.digest
    assert outcome.seen == list(range(STEPS))


def test_modules_that_change_in_place_end_in_the_same_bits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = nnx_train(alone(monkeypatch), nnx_parts())
    world.submit()
    resumed_at = lost_after(world, 10, lambda attach, after: nnx_train(attach, nnx_parts(), after))

    outcome = nnx_train(lambda **given: world.attach(2, **given), nnx_parts())

    assert 0 < resumed_at <= 10
    assert outcome.losses == {step: loss for step, loss in expected.losses.items() if step >= resumed_at}
    assert outcome.digest == expected.digest


def saved(world: World, state: Any) -> None:
    """One step that changes nothing, and its checkpoint."""
    world.submit(SELDOM)
    run = world.attach(1, state=state)
    for _, _ in run.steps([0], total=1):
        run.step(0.5, state=state)
    run.close()
    world.hand_over(2)


def test_arrays_return_to_the_devices_that_the_script_has_given_them(world: World) -> None:
    mesh = jax.make_mesh((4,), ("data",))
    rows, columns = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), (None, "data")))
    values = jnp.arange(64.0).reshape(8, 8)
    state = {
        "rows": jax.device_put(values, rows),
        "columns": jax.device_put(values, columns),
        "everywhere": jax.device_put(values, NamedSharding(mesh, PartitionSpec())),
        "second": jax.device_put(values, jax.devices()[1]),
        "keys": jax.device_put(jax.random.split(jax.random.key(1), 8), rows),
        "anywhere": values,
    }
    saved(world, state)
    blank = {
        name: jax.device_put(jnp.zeros_like(value), value.sharding) for name, value in state.items() if name != "keys"
    }
    blank |= {"keys": jax.device_put(jax.random.split(jax.random.key(2), 8), rows), "anywhere": jnp.zeros((8, 8))}

    restored = world.attach(2, state=blank).state

    assert digest(restored) == digest(state)
    assert {name: value.sharding for name, value in restored.items()} == {
        name: value.sharding for name, value in state.items()
    }
    assert not restored["anywhere"].committed  # else it could not meet arrays on other devices


def test_an_array_in_pieces_on_several_devices_is_put_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer_shim.shards.LIMIT", 96)  # bytes: pieces that end within a device's part
    mesh = jax.make_mesh((4,), ("data",))
    values = jnp.arange(120.0).reshape(8, 15)
    state = [jax.device_put(values, NamedSharding(mesh, PartitionSpec("data"))), values.astype(jnp.int4)]
    saved(world, state)

    restored = world.attach(2, state=[jnp.zeros((8, 15)), jnp.zeros((8, 15), jnp.int4)]).state

    assert digest(restored) == digest(state)


def test_a_donated_state_is_read_before_the_next_step_takes_it(world: World) -> None:
    world.submit(Cadence(every_steps=1))
    first = initial()
    run = world.attach(1, state=first)
    for _, batch in run.steps(Batches(), total=5):
        before = run.state
        state, loss = update(before, batch)
        assert before["params"]["in"].is_deleted()
        run.step(loss, state=state)

    assert world.steps_committed()[-1] == 5
    run.close()


def test_a_step_that_keeps_its_new_state_to_itself_is_told(world: World) -> None:
    world.submit()
    run = world.attach(1, state=initial())
    steps = run.steps(Batches(), total=5)
    next(steps)

    with pytest.raises(InvalidInput, match=r"without the new state: call run\.step\(loss, state=state\)"):
        run.step(1.0)
    with pytest.raises(InvalidInput, match="another structure"):
        run.step(1.0, state={"params": 1})


MISFITS: dict[str, Any] = {
    r"state: params/in is \(8, 16\) in the checkpoint, \(8, 17\) in the script": lambda s: s["params"].update(
        {"in": jnp.zeros((8, 17))}
    ),
    r"state: params/in is float32 in the checkpoint, bfloat16 in the script": lambda s: s["params"].update(
        {"in": jnp.zeros((8, 16), jnp.bfloat16)}
    ),
    r"state: params/more is in the script only": lambda s: s["params"].update({"more": jnp.zeros(1)}),
    r"state: mask is in the checkpoint only": lambda s: s.pop("mask"),
    r"state: key is key\.threefry2x32 in the checkpoint, key\.rbg in the script": lambda s: s.update(
        {"key": jax.random.key(1, impl="rbg")}
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_state_that_has_changed_is_refused_by_name(world: World, misfit: str) -> None:
    saved(world, initial())
    other = initial()
    MISFITS[misfit](other)
    before = digest(other)

    with pytest.raises(InvalidInput, match=misfit):
        world.attach(2, state=other)

    assert digest(other) == before


def test_a_module_that_has_changed_is_refused_and_not_touched(world: World) -> None:
    world.submit(SELDOM)
    model, optimizer = nnx_parts()
    run = world.attach(1, model=model, optimizer=optimizer)
    for _, _ in run.steps([0], total=1):
        run.step(0.5)
    run.close()
    world.hand_over(2)
    other = Net(nnx.Rngs(1))
    other.last = nnx.Linear(16, 4, rngs=nnx.Rngs(2))
    before = digest(nnx.state(other))

    with pytest.raises(InvalidInput, match=r"last/kernel/value is \(16, 3\) in the checkpoint, \(16, 4\)"):
        world.attach(2, model=other)

    assert digest(nnx.state(other)) == before


def test_what_a_forward_pass_leaves_in_a_module_is_no_state(world: World) -> None:
    world.submit(SELDOM)
    model, optimizer = nnx_parts()
    run = world.attach(1, model=model, optimizer=optimizer)
    for _, _ in run.steps([0], total=1):
        model.hidden = nnx.Intermediate(jnp.ones(3))
        run.step(0.5)
    run.close()
    world.hand_over(2)

    assert world.attach(2, model=nnx_parts()[0], optimizer=nnx_parts()[1]).resumed_from == 1


def test_an_optimizer_that_is_left_out_on_the_resume_is_named(world: World) -> None:
    world.submit(SELDOM)
    model, optimizer = nnx_parts()
    run = world.attach(1, model=model, optimizer=optimizer)
    for _, _ in run.steps([0], total=1):
        run.step(0.5)
    run.close()
    world.hand_over(2)

    with pytest.raises(InvalidInput, match="optimizer is in the checkpoint, and was not attached"):
        world.attach(2, model=nnx_parts()[0])


def test_arrays_of_64_bits_are_refused_where_jax_would_cut_them(world: World) -> None:
    with jax.enable_x64(True):
        saved(world, {"n": jnp.arange(3)})

    with pytest.raises(InvalidInput, match="state/n has 64 bits: switch jax_enable_x64 on"):
        world.attach(2, state={"n": jnp.arange(3)})


def test_a_checkpoint_of_torch_is_refused(world: World) -> None:
    world.submit(SELDOM)
    run = world.attach(1, **build().attached())
    for _, _ in run.steps([0], total=1):
        run.step(0.5)
    run.close()
    world.hand_over(2)

    with pytest.raises(InvalidInput, match="state was attached, and is not in the checkpoint"):
        world.attach(2, state=initial())


def test_a_state_above_the_bound_for_host_memory_is_copied_in_turns(world: World) -> None:
    world.submit(Cadence(every_steps=1))
    state = {"w": jnp.arange(1_000_000.0), "b": jnp.ones(10)}
    run = world.attach(1, state=state, staging_bytes=2**20)
    for _, _ in run.steps([0], total=2):
        run.step(0.5, state=state)
    run.close()
    world.hand_over(2)

    restored = world.attach(2, state={"w": jnp.zeros(1_000_000), "b": jnp.zeros(10)})

    assert world.steps_committed() == [1, 2]
    assert run._session._saver._taker.staging.size <= 2**20
    assert digest(restored.state) == digest(state)


def judged(world: World, state: Any) -> Health:
    saved(world, state)
    return world.checkpoints[0].commit.health


def test_masks_and_best_losses_may_be_infinite(world: World) -> None:
    assert judged(world, initial()) is Health.HEALTHY


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float8_e5m2])
def test_a_parameter_that_is_no_number_any_more_makes_a_checkpoint_bad(world: World, dtype: Any) -> None:
    world.submit(SELDOM)
    run = world.attach(1, state={"w": jnp.ones((3, 5), dtype)})
    for _, _ in run.steps([0], total=1):
        run.step(0.5, state={"w": run.state["w"].at[1, 2].set(jnp.nan)})
    run.close()

    assert world.checkpoints[0].commit.health is Health.BAD


class Grain:
    """A loader whose iterators hand out their state, as grain's do."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        return _GrainIterator(self)


class _GrainIterator:
    def __init__(self, loader: Grain) -> None:
        self.loader = loader
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.at == BATCHES:
            raise StopIteration
        self.at += 1
        self.loader.read += 1
        return numpy.full((4, 8), self.at, numpy.float32)

    def get_state(self) -> bytes:
        return self.at.to_bytes(2, "big")

    def set_state(self, state: bytes) -> None:
        self.at = int.from_bytes(state, "big")


def test_an_iterator_that_has_a_state_is_not_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(alone(monkeypatch), initial(), Grain())
    world.submit()
    resumed_at = lost_after(world, 11, lambda attach, after: train(attach, initial(), Grain(), after))
    loader = Grain()

    outcome = train(lambda **given: world.attach(2, **given), initial(), loader)

    assert outcome.digest == expected.digest
    assert loader.read == STEPS - resumed_at


class Numbered(torch.utils.data.Dataset[Any]):
    """Samples of a torch data set, with chance in them."""

    def __len__(self) -> int:
        return 4 * BATCHES

    def __getitem__(self, index: int) -> Any:
        return numpy.full(8, index, numpy.float32) + torch.rand(8).numpy()


def torch_loader() -> Any:
    torch.manual_seed(8)
    return torch.utils.data.DataLoader(Numbered(), batch_size=4, shuffle=True, collate_fn=numpy.stack)


def test_a_shuffled_loader_of_torch_goes_on_in_the_middle_of_its_epoch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(alone(monkeypatch), initial(), torch_loader())
    world.submit()
    lost_after(world, 10, lambda attach, after: train(attach, initial(), torch_loader(), after))

    outcome = train(lambda **given: world.attach(2, **given), initial(), torch_loader())

    assert outcome.digest == expected.digest


def donated() -> dict[str, Any]:
    state = initial()
    update(state, numpy.zeros((4, 8), numpy.float32))
    return {"state": state}


REFUSED: dict[str, Any] = {
    r"state/\S+ was donated to a function": donated,
    "put it all into the state": lambda: {"state": initial(), "model": 1},
    "names is a builtins.str|state/names is an array": lambda: {"state": {"names": numpy.array(["a"])}},
    "belongs to a function|which a checkpoint cannot hold": lambda: {"state": {"f": object()}},
    "scheduler=...": lambda: {"model": Net(nnx.Rngs(0)), "scheduler": 1},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_no_checkpoint_can_hold_is_refused_at_once(world: World, reason: str) -> None:
    world.submit()

    with pytest.raises(InvalidInput, match=reason):
        world.attach(1, **REFUSED[reason]())
