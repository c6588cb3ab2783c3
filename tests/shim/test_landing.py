"""Where a checkpoint comes down: the script's own memory to be, a bounded part aside, and a file for the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from spotrelay.core.checkpoint import Manifest, Shard
from spotrelay.core.errors import Damaged, InvalidInput, Unavailable
from spotrelay.testing import MemoryObjects
from spotrelay.testing.objects import MemoryStream
from tests.shim.harm import Scene, Watched
from tests.shim.test_resume_choice import newest_verified
from tests.shim.training import build, digest
from tests.shim.world import World
from trainer_shim import landing as landing_module
from trainer_shim.fetching import CHUNK, SMALL, fetch_shard
from trainer_shim.inventory import Inventory, Span, width
from trainer_shim.inventory import inventory as inventory_of
from trainer_shim.landing import InMemory, Spilled, landing
from trainer_shim.shards import LIMIT, plan
from trainer_shim.tree import Leaf

MIB = 2**20


def table(**sizes: int) -> dict[str, Any]:
    return {name: {"dtype": "uint8", "shape": [size], "at": [[0, name, 0]]} for name, size in sizes.items()}


def manifest(arrays: dict[str, Any], *sizes: int) -> Manifest:
    shards = tuple(Shard(f"s{n}", f"v{n}", size, "e", "d", "c") for n, size in enumerate(sizes))
    return Manifest("run-1", 1, 1, 1, shards, {"arrays": arrays, "state": {}})


def inventory(written: Manifest) -> Inventory:
    return inventory_of(written.tree["arrays"], written.shards)


def is_copied(name: str) -> bool:
    return name.startswith("model")


def test_what_is_copied_is_kept_aside_in_a_fifth_of_the_state_and_the_rest_in_a_file(tmp_path: Path) -> None:
    layers = {f"model{n:02d}": 4 * MIB for n in range(25)}
    found = inventory(manifest(table(**layers, moments=200 * MIB, tiny=0), 301 * MIB))

    places = landing(found, is_copied, tmp_path)

    kept = [name for name in layers if isinstance(places[name], InMemory)]
    assert len(kept) == 15  # 60 of the state's 300 MiB
    assert isinstance(places["moments"], InMemory)
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_an_array_comes_back_from_the_file_as_it_was_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_module, "ASIDE_LEAST", 0)
    sizes = {"model1": 3_000_001, "model2": 1, "model3": 9_000_000, "model4": 77}
    places = landing(inventory(manifest(table(**sizes), 13 * MIB)), is_copied, tmp_path)
    bodies = {name: os.urandom(size) for name, size in sizes.items()}

    for name, body in bodies.items():
        for begin in range(0, len(body), 700_000):
            places[name].put(begin, memoryview(body)[begin : begin + 700_000])

    assert isinstance(places["model3"], Spilled)
    assert {name: bytes(places[name].take()) for name in sizes} == bodies


def test_a_disk_that_refuses_at_first_leaves_everything_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    found = inventory(manifest(table(model=100 * MIB), 101 * MIB))

    with caplog.at_level("INFO"):
        places = landing(found, is_copied, Path("/proc/nowhere"))

    assert isinstance(places["model"], InMemory)
    assert "are kept in memory during the restore, the disk does not take them" in caplog.text


def test_a_disk_that_fails_in_the_middle_does_not_fail_the_restore(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(world, *newest_verified(world))
    parts = build()
    monkeypatch.setattr(landing_module, "ASIDE_LEAST", 0)
    monkeypatch.setattr(landing_module, "ASIDE", 0.0)

    def refuse(*given: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", refuse)
    with caplog.at_level("INFO"):
        restored = scene.resume(Watched(parts.model, parts.optimizer, parts.scheduler, None, {}))

    assert restored is not None
    assert restored.checkpoint.id == scene.newest.id
    assert "the disk failed during the restore" in caplog.text


def test_a_model_that_passes_through_the_file_is_the_same_bit_for_bit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(world, *newest_verified(world))
    digests = []
    for aside in (0.0, 1.0):
        monkeypatch.setattr(landing_module, "ASIDE", aside)
        monkeypatch.setattr(landing_module, "ASIDE_LEAST", 0)
        parts = build()
        scene.resume(Watched(parts.model, parts.optimizer, parts.scheduler, None, {}))
        digests.append(digest(parts.model))

    assert digests[0] == digests[1] != digest(build().model)


def test_moments_live_on_in_the_memory_that_they_came_down_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(world, *newest_verified(world))
    parts = build()
    framework = Watched(parts.model, parts.optimizer, parts.scheduler, None, {})
    given: dict[str, int] = {}
    make = framework.array

    def array(data: memoryview, dtype: str, shape: tuple[int, ...]) -> Any:
        made = make(data, dtype, shape)
        if isinstance(made, torch.Tensor) and made.numel():
            given[made.data_ptr()] = made.nbytes
            assert made.data_ptr() % 64 == 0
        return made

    monkeypatch.setattr(framework, "array", array)
    scene.resume(framework)

    moments = [state["exp_avg"] for state in parts.optimizer.state.values()]
    assert moments
    assert all(given[each.data_ptr()] == each.nbytes for each in moments)
    assert not any(each.data_ptr() in given for each in parts.model.parameters())


def test_a_restore_takes_a_quarter_of_the_state_more_than_it_leaves_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.shim.restore_peak"],
        capture_output=True, text=True, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    measured = json.loads(done.stdout)

    assert measured["size"] > 150 * MIB
    assert measured["extra"] <= 0.25


# one shard


def shard_of(arrays: dict[str, bytes]) -> tuple[Shard, dict[str, Span], bytes]:
    offset, described = 0, {}
    for name, body in arrays.items():
        described[name] = {"dtype": "U8", "shape": [len(body)], "data_offsets": [offset, offset + len(body)]}
        offset += len(body)
    header = json.dumps(described).encode()
    body = len(header).to_bytes(8, "little") + header + b"".join(arrays.values())
    spans = {name: Span(name, 0, len(each)) for name, each in arrays.items()}
    return Shard("runs/r/s", "v", len(body), "e", xxhash.xxh3_128_hexdigest(body), "c"), spans, body


SIZES = (0, 1, SMALL - 1, SMALL, SMALL + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 7)


class Flaky:
    """A bucket whose every answer breaks off after a few views."""

    def __init__(self, body: bytes, views: int) -> None:
        self.body, self.views = body, views
        self.starts: list[int] = []

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> Any:
        self.starts.append(start)
        stream, left = MemoryStream(key, self.body, start), [self.views]
        fill = stream.fill

        def cut(view: memoryview) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("broke off")
            fill(view)

        stream.fill = cut  # type: ignore[method-assign]  # this one breaks off
        return stream


def again(request: Any) -> Any:
    """Try until it works."""
    while True:
        try:
            return request()
        except Unavailable:
            continue


@pytest.mark.parametrize("spilled", [False, True])
def test_a_download_goes_on_at_the_byte_where_it_broke_off(tmp_path: Path, spilled: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(landing_module, "ASIDE_LEAST", 0)
    arrays = {f"model{n}": os.urandom(size) for n, size in enumerate(SIZES)}
    shard, spans, body = shard_of(arrays)
    found = inventory(manifest(table(**{name: len(each) for name, each in arrays.items()}), shard.size))
    places = landing(found, is_copied if spilled else (lambda name: False), tmp_path)
    bucket: Any = Flaky(body, 2)

    fetch_shard(shard, spans, places, bucket, None, again)

    assert {name: bytes(places[name].take()) for name in arrays} == arrays
    assert len(bucket.starts) > 3
    assert bucket.starts == sorted(set(bucket.starts))


def test_fifty_thousand_small_arrays_need_one_request_and_a_few_reads(tmp_path: Path) -> None:
    arrays = {f"layer.{n}.weight": n.to_bytes(8, "little") for n in range(50_000)}
    shard, spans, body = shard_of(arrays)
    found = inventory(manifest(table(**{name: 8 for name in arrays}), shard.size))
    places = landing(found, is_copied, tmp_path)
    reads: list[int] = []

    class Counting(MemoryStream):
        def fill(self, view: memoryview) -> None:
            reads.append(len(view))
            super().fill(view)

    class Bucket:
        def stream(self, key: str, version_id: str | None = None, start: int = 0) -> MemoryStream:
            return Counting(key, body, start)

    fetch_shard(shard, spans, places, Bucket(), None, lambda call: call())  # type: ignore[arg-type]  # only streams

    assert len(reads) < 2 * len(body) / CHUNK + 5
    assert bytes(places["layer.49999.weight"].take()) == (49_999).to_bytes(8, "little")


def test_a_damaged_shard_can_only_write_where_the_manifest_sends_it() -> None:
    """Another shard's part of the same array, proven already, must stay as it is."""
    shard, _, body = shard_of({"big#1": b"x" * 100})
    place = InMemory(300)
    place.put(100, memoryview(b"proven" * 20)[:100])
    objects = MemoryObjects()
    objects.put(shard.key, body.replace(b"[100]", b"[200]").replace(b"[0, 100]", b"[0, 200]"))
    stored = objects.head(shard.key)

    with pytest.raises(Damaged) as damaged:
        fetch_shard(
            Shard(shard.key, stored.version_id, shard.size, "e", shard.digest, "c"),
            {"big#1": Span("big", 0, 100)}, {"big": place}, objects, None, lambda call: call(),
        )  # fmt: skip

    assert bytes(place.take()[100:200]) == (b"proven" * 20)[:100]
    assert (damaged.value.key, damaged.value.version) == (shard.key, stored.version_id)


# by arithmetic


@pytest.mark.parametrize(("size", "pieces"), [(6 * 2**30, 96), (700 * 2**30, 11_200)])
def test_a_tensor_over_five_gib_and_one_over_ten_thousand_parts_are_only_more_shards(size: int, pieces: int) -> None:
    leaf = Leaf("models/model/huge", "bfloat16", (size // 2,), size, None)

    arrays = plan([leaf], LIMIT).arrays
    spans = [span for part in inventory(manifest(arrays, *[LIMIT + MIB] * pieces)).shards for span in part.values()]

    assert len(spans) == pieces
    assert sum(span.size for span in spans) == size
    assert max(span.size for span in spans) <= LIMIT < 5 * 2**30


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("bool", 1), ("bytes", 1), ("bfloat16", 2), ("complex32", 4), ("complex128", 16), ("float8_e4m3fnuz", 1),
     ("float4_e2m1fn_x2", 1), ("uint16", 2), ("int4", 1)],
)  # fmt: skip
def test_a_types_name_tells_its_width(dtype: str, size: int) -> None:
    assert width(dtype) == size
    assert dtype == "bytes" or dtype == "int4" or torch.empty(1, dtype=getattr(torch, dtype)).element_size() == size


# what no checkpoint can hold


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (torch.empty(3, device="meta"), "a meta tensor"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a quantized or packed tensor"),
        (torch.empty(3, dtype=torch.uint4), "a quantized or packed tensor"),
    ],
    ids=["meta", "quantized", "packed"],
)
def test_a_tensor_that_no_checkpoint_can_hold_is_refused_by_name_at_attach(
    world: World, tensor: torch.Tensor, named: str
) -> None:
    world.submit()
    model = torch.nn.Linear(2, 2)
    model.register_buffer("odd", tensor)

    with pytest.raises(InvalidInput, match=f"models/model/odd is {named}"):
        world.attach(1, model=model)


def test_a_compressed_tensor_of_another_number_of_elements_is_refused_before_anything_is_touched(world: World) -> None:
    def model(elements: int) -> torch.nn.Module:
        made = torch.nn.Linear(2, 2)
        made.register_buffer("csr", torch.diag(torch.arange(5) < elements).float().to_sparse_csr())
        return made

    world.submit()
    run = world.attach(1, model=model(3))
    run.step(0.5)
    run.close()
    world.hand_over(2)

    with pytest.raises(InvalidInput, match="csr is of 3 elements in the checkpoint, of 4 in the model"):
        world.attach(2, model=model(4))
