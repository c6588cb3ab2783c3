"""Whatever happens to a checkpoint, it is found before the script is touched, and the one before it is taken."""

from __future__ import annotations

import json
import pickle
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import Manifest
from tests.shim.harm import Scene, Watched
from tests.shim.test_resume_choice import newest_verified
from tests.shim.training import build, digest
from tests.shim.world import World
from trainer_shim import shards

DAMAGES = 1000


@pytest.fixture
def scene(world: World, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(shards, "LIMIT", 1600)  # so that a small model has many shards, and arrays cut into pieces
    newest, older = newest_verified(world)
    made = Scene(world, newest, older)
    assert len(made.shards) > 5
    assert any(len(each["at"]) > 1 for each in made.manifest.tree["arrays"].values())
    return made


def fresh() -> Watched:
    """A script's model and optimizer, untouched."""
    parts = build()
    with torch.no_grad():
        for each in parts.model.parameters():
            each.fill_(7.0)
    return Watched(parts.model, parts.optimizer, parts.scheduler, None, {})


def falls_back(scene: Scene, framework: Watched, before: str) -> dict[str, Any]:
    """Resume, and see that the one before was taken by an untouched script; what was told of the damage."""
    restored = scene.resume(framework)

    assert restored is not None
    assert restored.checkpoint.id == scene.older.id
    assert framework.before == before
    [said] = scene.told
    assert (said["generation"], said["save"]) == (scene.newest.id.generation, scene.newest.id.save)
    return said


# a thousand of them


def flip(body: bytes, source: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(source.choice([1, 1, 1, 2, 9])):
        changed[source.randrange(len(body))] ^= 1 << source.randrange(8)
    return bytes(changed) if bytes(changed) != body else flip(body, source)


def truncate(body: bytes, source: random.Random) -> bytes:
    return body[: source.randrange(len(body))]


def extend(body: bytes, source: random.Random) -> bytes:
    return body + source.randbytes(source.choice([1, 8, 64, 4096]))


def shift(body: bytes, source: random.Random) -> bytes:
    by = source.randrange(1, len(body))
    return body[by:] + body[:by] if body[by:] + body[:by] != body else flip(body, source)


def blank(body: bytes, source: random.Random) -> bytes:
    begin = source.randrange(len(body))
    changed = body[:begin] + bytes(len(body) - begin)
    return changed if changed != body else flip(body, source)


def test_a_thousand_random_damages_are_all_found_by_an_untouched_script(scene: Scene) -> None:
    source = random.Random(7)
    framework = fresh()
    started = {name: value.clone() for name, value in framework.models["model"].state_dict().items()}
    before = digest(framework.models["model"])
    places = [*scene.shards, scene.place]
    good = None
    for number in range(DAMAGES):
        scene.restart()
        place = source.choice(places)
        clean = scene.bucket.clean[place]
        kind = source.randrange(7)
        if kind == 0:
            scene.bucket.harmed[place] = None
        elif kind == 1:
            others = [other for each, other in scene.bucket.clean.items() if each != place and other != clean]
            scene.bucket.harmed[place] = source.choice(others)
        else:
            scene.bucket.harmed[place] = (flip, truncate, extend, shift, blank)[kind - 2](clean, source)

        said = falls_back(scene, framework, before)

        assert (said["key"], said["version"]) == place, f"damage {number}"
        good = good or digest(framework.models["model"])
        assert digest(framework.models["model"]) == good != before
        with torch.no_grad():
            for name, value in framework.models["model"].state_dict().items():
                value.copy_(started[name])
    scene.restart()
    restored = scene.resume(framework)
    assert restored is not None
    assert restored.checkpoint.id == scene.newest.id


def two_exchanged(manifest: Manifest) -> Manifest:
    first, second, *rest = manifest.shards
    return replace(manifest, shards=(second, first, *rest))


def versions_exchanged(manifest: Manifest) -> Manifest:
    first, second, *rest = manifest.shards
    return replace(
        manifest,
        shards=(
            replace(first, version_id=second.version_id),
            replace(second, version_id=first.version_id),
            *rest,
        ),
    )


def wrong_version(manifest: Manifest) -> Manifest:
    first, *rest = manifest.shards
    return replace(manifest, shards=(replace(first, version_id="v99999999"), *rest))


def stranger(manifest: Manifest) -> Manifest:
    return replace(manifest, run_id="run-2")


def a_shard_less(manifest: Manifest) -> Manifest:
    return replace(manifest, shards=manifest.shards[1:])


@pytest.mark.parametrize(
    "forged", [two_exchanged, versions_exchanged, wrong_version, stranger, a_shard_less], ids=lambda f: f.__name__
)
def test_a_manifest_that_names_other_shards_is_found(scene: Scene, forged: Callable[[Manifest], Manifest]) -> None:
    scene.forge(forged)
    framework = fresh()

    falls_back(scene, framework, digest(framework.models["model"]))


def test_shards_whose_contents_were_exchanged_are_found(scene: Scene) -> None:
    first, second, *_ = scene.shards
    scene.bucket.harmed[first] = scene.bucket.clean[second]
    scene.bucket.harmed[second] = scene.bucket.clean[first]
    framework = fresh()

    falls_back(scene, framework, digest(framework.models["model"]))


def test_a_stale_manifest_under_the_key_of_a_newer_one_is_found(scene: Scene) -> None:
    old = (scene.older.commit.manifest_key, scene.older.commit.manifest_version)
    scene.bucket.harmed[scene.place] = scene.bucket.clean[old]
    framework = fresh()

    falls_back(scene, framework, digest(framework.models["model"]))


def test_a_commit_repeated_under_another_number_is_found(scene: Scene) -> None:
    where = scene.newest.id
    scene.table.commits[where] = replace(
        scene.older.commit, generation=where.generation, save=where.save, step=scene.newest.commit.step
    )
    framework = fresh()

    said = falls_back(scene, framework, digest(framework.models["model"]))

    assert "of another checkpoint" in said["problem"]


# hostile files


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def header(table: Any) -> bytes:
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


HOSTILE = {
    "a pickle": pickle.dumps(Bomb()),
    "a torch file": b"PK\x03\x04" + pickle.dumps(Bomb()),
    "a header of all there is": (2**64 - 1).to_bytes(8, "little"),
    "a header of a terabyte": (2**40).to_bytes(8, "little") + b"{}",
    "a header that is negative": (-1).to_bytes(8, "little", signed=True) + b"{}",
    "nothing": b"",
    "deep lists": header([]) + b"[" * 100_000,
    "deep objects": (600_000).to_bytes(8, "little") + b'{"a":' * 120_000,
    "a huge number": (2_000_000).to_bytes(8, "little") + b"9" * 2_000_000,
    "overlapping entries": header(
        {
            "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
        }
    )
    + bytes(8),
    "negative offsets": header({"a": {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]}}) + bytes(8),
    "names that are paths": header({"../../etc/passwd": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}})
    + bytes(8),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("which", ["shard", "manifest"])
@pytest.mark.parametrize("fitted", [False, True], ids=["as it is", "cut or filled to the size"])
def test_a_hostile_file_is_damaged_and_nothing_else(scene: Scene, name: str, which: str, fitted: bool) -> None:
    place = scene.shards[0] if which == "shard" else scene.place
    body, size = HOSTILE[name], len(scene.bucket.clean[place])
    scene.bucket.harmed[place] = (body + bytes(max(size - len(body), 0)))[:size] if fitted else body
    framework = fresh()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    said = falls_back(scene, framework, digest(framework.models["model"]))

    assert said["key"] == place[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def table_with(change: Callable[[dict[str, Any]], Any]) -> Callable[[Manifest], Manifest]:
    """A manifest whose first array is described otherwise."""

    def changed(manifest: Manifest) -> Manifest:
        arrays = json.loads(json.dumps(manifest.tree["arrays"]))
        name = next(name for name, each in arrays.items() if each["dtype"] == "float32" and len(each["at"]) == 1)
        arrays[name] = change(arrays[name])
        return replace(manifest, tree={**manifest.tree, "arrays": arrays})

    return changed


def state_of(state: Any) -> Callable[[Manifest], Manifest]:
    return lambda manifest: replace(manifest, tree={**manifest.tree, "state": state})


LIES: dict[str, Callable[[Manifest], Manifest]] = {
    "an array of a petabyte": table_with(lambda each: {**each, "shape": [2**48]}),
    "more dimensions than sense": table_with(lambda each: {**each, "shape": [1] * 10_000}),
    "a product of huge numbers": table_with(lambda each: {**each, "shape": [10**4000, 0]}),
    "a negative shape": table_with(lambda each: {**each, "shape": [-1, -4]}),
    "no type of torch's": table_with(lambda each: {**each, "dtype": "load32"}),
    "a type that is no name": table_with(lambda each: {**each, "dtype": ["float32"]}),
    "a shard that is not there": table_with(lambda each: {**each, "at": [[9999, "a", 0]]}),
    "a negative shard": table_with(lambda each: {**each, "at": [[-1, each["at"][0][1], 0]]}),
    "a piece before the beginning": table_with(lambda each: {**each, "at": [[*each["at"][0][:2], -8]]}),
    "a piece that begins late": table_with(lambda each: {**each, "at": [[*each["at"][0][:2], 4]]}),
    "pieces that overlap": table_with(lambda each: {**each, "at": [each["at"][0], each["at"][0]]}),
    "no pieces": table_with(lambda each: {**each, "at": []}),
    "no table": lambda manifest: replace(manifest, tree={"arrays": 7, "state": {}}),
    "no tree": lambda manifest: replace(manifest, tree={}),
    "a state that is a number": state_of(7),
    "a state with a pickle": state_of({"$": "pickle", "value": "gASVAAA="}),
    "a state that names no array": state_of({"a": {"$": "array", "name": "../../etc/passwd"}}),
    "a state with an unknown composite": state_of({"a": {"$": "composite", "kind": "load", "parts": {}}}),
    "a state that is not finite": state_of({"a": float("nan")}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_damaged_before_a_shard_is_asked_for(
    scene: Scene, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.forge(LIES[lie])
    for place in scene.shards:
        scene.bucket.harmed[place] = None
    framework = fresh()

    said = falls_back(scene, framework, digest(framework.models["model"]))

    assert said["key"] == scene.place[0]


@pytest.mark.parametrize("depth", [200, 320, 480, 10_000])
def test_a_state_nested_deeper_than_anybody_nests_is_damaged_at_worst(scene: Scene, depth: int) -> None:
    deep = b'{"$":"tuple","items":[' * depth + b"0" + b"]}" * depth
    scene.forge(state_of("DEEP"), lambda body: body.replace(b'"DEEP"', deep))
    framework = fresh()

    said = falls_back(scene, framework, digest(framework.models["model"]))

    assert said["key"] == scene.place[0]
