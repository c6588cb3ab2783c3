"""Layouts from a hostile hand, and what a checkpoint of DCP's may hold; in one process, without a network."""

from __future__ import annotations

import copy
import json
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import xxhash

from spotrelay.core.checkpoint import Commit, Manifest, Shard, decode_manifest, digest_of, manifest_key
from spotrelay.core.errors import InvalidInput
from tests.shim.world import RUN, World
from trainer_shim import shards
from trainer_shim.frameworks import torch_dcp

Tree = dict[str, Any]


@pytest.fixture
def join(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], torch_dcp.Attempt]]:
    """`torch_dcp.join` as the script of an attempt calls it."""
    world.submit()
    warnings.simplefilter("ignore", UserWarning)  # DCP says that it is alone
    monkeypatch.setattr(shards, "LIMIT", 256)
    joined: list[torch_dcp.Attempt] = []

    def made(generation: int) -> torch_dcp.Attempt:
        world._become(generation)
        attempt = torch_dcp.join()
        assert attempt is not None
        joined.append(attempt)
        return attempt

    yield made
    for each in joined:
        each.close()


def state(seed: int = 0) -> Tree:
    """One of everything that DCP knows and we can hold."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(31, 9, generator=generator)  # several shards of 256 bytes
    return {
        "model": {"wide": wide, "turned": torch.randn(4, 6, generator=generator).t(), "empty": torch.empty(0, 3)},
        "count": torch.tensor(5 + seed),
        "half": torch.randn(7, generator=generator).to(torch.bfloat16),
        "complex": torch.randn(3, generator=generator, dtype=torch.complex64),
        "mask": torch.tensor([True, False, seed == 0]),
        "lr": 0.1 + seed,
        "nothing": None,
        "infinite": float("inf"),
        "pair": (1, ("two", [3.0])),
        "listed": [torch.ones(2) * seed, {"deep": seed}],
        "bytes": os.urandom(700) if seed == 0 else b"",
        "held": (torch.arange(5) + seed, "beside"),
    }


def same(a: Any, b: Any) -> bool:
    """Equal in every bit and type."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def newest(world: World) -> Manifest:
    """Its manifest."""
    commit = world.checkpoints[0].commit
    return decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))


def plant(world: World, tree: Tree, placed: tuple[Shard, ...]) -> None:
    """A committed checkpoint by someone who may write to the bucket and the table."""
    lease = world.store.read_lease(RUN)
    manifest = Manifest(RUN, lease.generation, lease.save + 1, 9, placed, tree)
    made = world.objects.put(manifest_key(RUN, manifest.generation, manifest.save), manifest.encode())
    digest = digest_of(manifest.encode())
    assert lease.holder is not None
    world.store.commit(
        Commit(RUN, manifest.generation, manifest.save, 9, made.key, made.version_id, digest, 1), lease.holder
    )


def test_everything_comes_back_as_it_was(world: World, join: Any) -> None:
    saved = state()
    dcp.save(copy.deepcopy(saved), storage_writer=torch_dcp.SpotrelayWriter(join(1), 4))
    world.hand_over(2)
    target = state(1)

    found = torch_dcp.load(lambda: target, join(2))

    assert found is not None and found.step == 4
    assert same(target, saved)


def test_a_run_without_a_checkpoint_begins_at_step_0(world: World, join: Any) -> None:
    made: list[int] = []

    assert torch_dcp.load(lambda: made.append(1) or state(1), join(1)) is None
    assert made == []  # to make a state may change an optimizer


def test_outside_spotrelay_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOTRELAY_RUN", raising=False)

    assert torch_dcp.join() is None


def test_the_public_calls_alone_load_too_and_say_when_there_is_nothing(world: World, join: Any) -> None:
    attempt = join(1)
    with pytest.raises(dcp.CheckpointException, match="has no checkpoint yet"):
        dcp.load(state(1), storage_reader=torch_dcp.SpotrelayReader(attempt))
    saved = state()
    dcp.save(saved, storage_writer=torch_dcp.SpotrelayWriter(attempt, 4))
    world.verify()
    target = state(1)

    dcp.load(target, storage_reader=torch_dcp.SpotrelayReader(attempt))

    assert same(target, saved)


def test_saving_in_the_background_holds_what_was_there_when_it_began(world: World, join: Any) -> None:
    attempt = join(1)
    saved = {"w": torch.ones(300)}
    future = dcp.async_save(saved, storage_writer=torch_dcp.SpotrelayWriter(attempt, 1), no_dist=True)
    saved["w"].mul_(3)
    future.result()
    world.verify()
    target = {"w": torch.zeros(300)}

    torch_dcp.load(lambda: target, attempt)

    assert bool((target["w"] == 1).all())


def test_no_object_in_the_bucket_is_a_pickle(world: World, join: Any) -> None:
    dcp.save(state(), storage_writer=torch_dcp.SpotrelayWriter(join(1), 4))

    for each in world.objects.list_versions(""):
        body = world.objects.get(each.key)
        if each.key.endswith(".safetensors"):
            shards.read(memoryview(body), each.key)
        else:
            json.loads(body)


@pytest.mark.parametrize(
    ("value", "name"),
    [(object(), "odd"), ({1, 2}, "odd"), ((1, object()), "odd/1"), (torch.float32, "odd")],
    ids=["an object", "a set", "an object in a tuple", "a type"],
)
def test_what_is_no_json_is_refused_by_name_before_anything_is_uploaded(
    value: Any, name: str, world: World, join: Any
) -> None:
    with pytest.raises(dcp.CheckpointException, match=f"{name} is a"):
        dcp.save({"odd": value, "w": torch.ones(2)}, storage_writer=torch_dcp.SpotrelayWriter(join(1), 1))

    assert list(world.objects.list_versions("")) == []


def test_a_planner_that_has_only_pickle_to_give_is_refused(world: World, join: Any) -> None:
    class Own(dcp.DefaultLoadPlanner):
        def load_bytes(self, read_item: Any, value: Any) -> None:
            raise AssertionError("never called")

    attempt = join(1)
    dcp.save({"lr": 0.1}, storage_writer=torch_dcp.SpotrelayWriter(attempt, 1))
    world.verify()

    with pytest.raises(dcp.CheckpointException, match=r"planner .*Own wants pickle"):
        torch_dcp.load(lambda: {"lr": 0.2}, attempt, Own())


def test_an_id_of_the_callers_own_is_refused(join: Any) -> None:
    attempt = join(1)

    with pytest.raises(InvalidInput, match="the run numbers its checkpoints"):
        dcp.save({"w": torch.ones(2)}, checkpoint_id="mine", storage_writer=torch_dcp.SpotrelayWriter(attempt, 1))


def test_attach_says_who_reads_such_a_checkpoint(world: World, join: Any) -> None:
    dcp.save({"w": torch.ones(2)}, storage_writer=torch_dcp.SpotrelayWriter(join(1), 1))
    world.hand_over(2)

    with pytest.raises(InvalidInput, match=r"torch\.distributed\.checkpoint"):
        world.attach(2, model=torch.nn.Linear(1, 1))

    assert world.checkpoints[0].verified  # it is not called damaged


def test_the_tools_that_rebuild_a_state_from_its_metadata_work(world: World, join: Any) -> None:
    attempt = join(1)
    saved = {"model": {"w": torch.ones(300), "parts": [torch.zeros(2), torch.ones(1)]}, "lr": 0.5}
    dcp.save(saved, storage_writer=torch_dcp.SpotrelayWriter(attempt, 1))
    world.verify()

    found = dcp.state_dict_loader._load_state_dict_from_keys(storage_reader=torch_dcp.SpotrelayReader(attempt))

    assert same(found, saved)


# a hostile hand


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.mark, "executed"))


def _tensor(tree: Tree) -> Tree:
    entry: Tree = tree["arrays"]["model.wide"]
    return entry


def _add_chunk(tree: Tree) -> None:
    chunk = copy.deepcopy(_tensor(tree)["chunks"][0])
    chunk["offsets"] = [1, 0]
    chunk["sizes"] = [1, 0]
    chunk["at"] = []
    _tensor(tree)["chunks"].append(chunk)
    chunk["sizes"] = [1, 9]


HOSTILE: dict[str, Callable[[Tree], Any]] = {
    "an offset beyond the tensor": lambda tree: _tensor(tree)["chunks"][0].update(offsets=[10**6, 0]),
    "a negative offset": lambda tree: _tensor(tree)["chunks"][0].update(offsets=[-1, 0]),
    "an offset that overflows": lambda tree: _tensor(tree)["chunks"][0].update(offsets=[2**70, 0]),
    "a size that is true": lambda tree: _tensor(tree)["chunks"][0].update(sizes=[True, 9]),
    "a shape of absurd size": lambda tree: _tensor(tree).update(shape=[2**40, 2**40]),
    "another shape": lambda tree: _tensor(tree).update(shape=[32, 9]),
    "another number of dimensions": lambda tree: _tensor(tree).update(shape=[279]),
    "overlapping chunks": _add_chunk,
    "no chunk at all": lambda tree: _tensor(tree).update(chunks=[]),
    "a wider type": lambda tree: _tensor(tree).update(dtype="float64"),
    "a type that is no type": lambda tree: _tensor(tree).update(dtype="save"),
    "a type that is a path": lambda tree: _tensor(tree).update(dtype="nn.Linear"),
    "a shard that there is not": lambda tree: _tensor(tree)["chunks"][0]["at"][0].__setitem__(0, 99),
    "a shard from the end": lambda tree: _tensor(tree)["chunks"][0]["at"][0].__setitem__(0, -1),
    "more bytes than the shard has": lambda tree: _tensor(tree)["chunks"][0]["at"][0].__setitem__(2, 10**12),
    "the same bytes twice": lambda tree: _tensor(tree)["chunks"][0]["at"].__setitem__(
        slice(None), _tensor(tree)["chunks"][0]["at"][:1] * 99
    ),
    "bytes that another array has": lambda tree: tree["arrays"].update(twin=copy.deepcopy(_tensor(tree))),
    "a list that grows without end": lambda tree: tree["planner"].update({"x": {"$": "tuple", "items": ["x", 10**12]}}),
    "an array where the planner's data is": lambda tree: tree.update(planner={"$": "array", "name": "x"}),
    "no arrays": lambda tree: tree.pop("arrays"),
    "arrays that are a list": lambda tree: tree.update(arrays=[]),
    "a value that is a tensor too": lambda tree: tree["values"].update({"model.wide": {"tree": 1, "arrays": {}}}),
    "a tree of an unknown kind": lambda tree: tree["values"].update(
        {"lr": {"tree": {"$": "pickle", "base64": "gASVAAAA"}, "arrays": {}}}
    ),
    "an entry that is not there": lambda tree: _tensor(tree)["chunks"][0]["at"][0].__setitem__(1, "other"),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE)
def test_a_layout_that_lies_is_passed_over_and_nothing_of_it_reaches_a_tensor(
    harm: Callable[[Tree], Any], world: World, join: Any
) -> None:
    attempt = join(1)
    saved = state()
    dcp.save(saved, storage_writer=torch_dcp.SpotrelayWriter(attempt, 4))
    manifest = newest(world)
    tree = copy.deepcopy(manifest.tree)
    harm(tree)
    plant(world, tree, manifest.shards)
    world.hand_over(2)
    target = state(1)

    found = torch_dcp.load(lambda: target, join(2))

    assert found is not None and found.step == 4
    assert same(target, saved)


def test_pickled_bytes_are_bytes_wherever_they_stand(world: World, join: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    attempt = join(1)
    dcp.save({"w": torch.ones(2)}, storage_writer=torch_dcp.SpotrelayWriter(attempt, 4))
    manifest = newest(world)
    made = world.objects.put(f"runs/{RUN}/shards/hostile", bomb)
    digest = xxhash.xxh3_128_hexdigest(bomb)
    hostile = Shard(made.key, made.version_id, len(bomb), made.etag, digest, made.checksum)
    tree = copy.deepcopy(manifest.tree)
    tree["arrays"]["w"]["chunks"][0]["at"][0][0] = 0
    plant(world, tree, (hostile,))
    world.hand_over(2)
    target = {"w": torch.zeros(2)}

    found = torch_dcp.load(lambda: target, join(2))

    assert found is not None and found.step == 4 and bool((target["w"] == 1).all())
    assert not mark.exists()
