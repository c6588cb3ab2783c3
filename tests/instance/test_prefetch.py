from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spotrelay.core.checkpoint import Checkpoint
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.prefetch import Prefetch
from spotrelay.testing.faults import Fault, Script, faulty
from spotrelay.testing.objects import MemoryObjects
from tests.instance.attempts import store_checkpoint


def prefetched(objects: MemoryObjects, folder: Path, *checkpoints: Checkpoint, **bounds: int) -> tuple[set[str], str]:
    """Names in the cache, and the log."""
    logbook = Logbook()
    prefetch = Prefetch(objects, logbook, folder, **{"disk_reserve": 0, **bounds})
    prefetch.start(checkpoints)
    assert prefetch.join(20)
    return {path.name for path in folder.iterdir()}, logbook.tail()


def base(key: str) -> str:
    return key.rsplit("/", 1)[1]


def shard_names(objects: MemoryObjects, save: int) -> set[str]:
    return {base(stored.key) for stored in objects.list_versions(f"runs/run-1/shards/000001/{save:06d}/")}


def test_the_newest_verified_checkpoint_is_fetched_whole(tmp_path: Path) -> None:
    objects = MemoryObjects()
    older, newer = (store_checkpoint(objects, save, (b"a%d" % save, b"b%d" % save)) for save in (1, 2))

    names, _ = prefetched(objects, tmp_path, newer, older)

    assert names == shard_names(objects, 2) | {"000002.json"}
    assert {(tmp_path / name).read_bytes() for name in shard_names(objects, 2)} == {b"a2", b"b2"}


def test_a_checkpoint_that_is_not_verified_is_not_fetched(tmp_path: Path) -> None:
    objects = MemoryObjects()
    older, newer = (store_checkpoint(objects, save, (b"a%d" % save,)) for save in (1, 2))

    names, _ = prefetched(objects, tmp_path, replace(newer, verdict=None), older)

    assert names == shard_names(objects, 1) | {"000001.json"}


def test_without_a_checkpoint_nothing_happens(tmp_path: Path) -> None:
    assert prefetched(MemoryObjects(), tmp_path) == (set(), "")


def test_a_shard_that_cannot_be_had_is_told_and_the_others_are_fetched(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = store_checkpoint(objects, 1, (b"a", b"b", b"c"))
    source = faulty(objects, Script({"get": [Fault.NONE, Fault.UNAVAILABLE]}))

    names, log = prefetched(source, tmp_path, checkpoint)

    assert len(names) == 3
    assert "is not prefetched" in log and "2 of 3 shards" in log


def test_a_manifest_that_was_exchanged_is_not_believed(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = store_checkpoint(objects, 1, (b"a",))
    other = replace(checkpoint, commit=replace(checkpoint.commit, manifest_digest="0" * 64))

    names, log = prefetched(objects, tmp_path, other)

    assert names == set()
    assert "not the manifest that was committed" in log


def test_a_shard_too_large_for_disk_or_memory_is_left_to_the_shim(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = store_checkpoint(objects, 1, (b"small", b"much too large"))

    by_memory, log = prefetched(objects, tmp_path, checkpoint, memory_bound=5)
    assert len(by_memory) == 2
    assert "too little room" in log

    (tmp_path / "none").mkdir()
    by_disk, _ = prefetched(objects, tmp_path / "none", checkpoint, disk_reserve=2**62)
    assert by_disk == {"000001.json"}


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = store_checkpoint(objects, 1, (b"a",))
    for name in (*shard_names(objects, 1), "000001.json"):
        (tmp_path / name).mkdir()  # the rename fails, as a write on a full disk would

    names, log = prefetched(objects, tmp_path, checkpoint)

    assert "is not prefetched" in log
    assert not [name for name in names if name.endswith(".part")]
