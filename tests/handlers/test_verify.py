"""Verification: a checkpoint passes only if S3 holds exactly what its committed manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from handlers.verify import verify
from spotrelay.core.checkpoint import Commit, Manifest, Verdict
from spotrelay.core.errors import Contention, Missing, Unavailable, UnknownFormat
from spotrelay.core.ports import StoredObject
from spotrelay.testing import Fault, MemoryObjects, Script, faulty
from spotrelay.testing.clock import START
from tests.handlers.checkpoints import (
    changed_shard,
    newer_format,
    put_checkpoint,
    put_manifest,
    put_manifest_bytes,
)


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def written(objects: MemoryObjects) -> tuple[Commit, Manifest]:
    return put_checkpoint(objects)


def problem(commit: Commit, objects: MemoryObjects) -> str:
    verdict = verify(commit, objects, START)
    assert not verdict.ok
    assert (verdict.generation, verdict.save, verdict.checked_at) == (commit.generation, commit.save, START)
    return verdict.problem


def test_a_whole_checkpoint_passes(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, _ = written

    assert verify(commit, objects, START) == Verdict(1, 1, True, "", START)


def test_a_checkpoint_without_arrays_passes(objects: MemoryObjects) -> None:
    commit, _ = put_checkpoint(objects, bodies=())

    assert verify(commit, objects, START).ok


def test_a_checkpoint_that_points_at_an_older_shard_passes(objects: MemoryObjects) -> None:
    _, first = put_checkpoint(objects, bodies=(b"frozen base", b"adapter 1"))
    commit, _ = put_checkpoint(objects, save=2, bodies=(b"adapter 2",), elder=first.shards[:1])

    assert verify(commit, objects, START).ok


def test_a_missing_shard_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, manifest = written
    objects.remove(manifest.shards[1].key)

    assert manifest.shards[1].key in problem(commit, objects)


def test_a_missing_older_shard_fails(objects: MemoryObjects) -> None:
    _, first = put_checkpoint(objects)
    commit, _ = put_checkpoint(objects, save=2, bodies=(b"adapter 2",), elder=first.shards[:1])
    objects.remove(first.shards[0].key)

    assert first.shards[0].key in problem(commit, objects)


def test_a_truncated_shard_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, manifest = written
    objects.truncate(manifest.shards[0].key, 3)

    assert f"{manifest.shards[0].key} has 3 bytes, the manifest says 7" in problem(commit, objects)


def test_two_shards_with_exchanged_contents_fail(objects: MemoryObjects) -> None:
    _, manifest = put_checkpoint(objects, bodies=(b"aaaa", b"bbbb"))
    left, right = manifest.shards
    swapped = replace(
        manifest,
        save=2,
        shards=(
            replace(left, key=right.key, version_id=right.version_id),
            replace(right, key=left.key, version_id=left.version_id),
        ),
    )

    assert "ETag" in problem(put_manifest(objects, swapped), objects)


def test_a_shard_of_the_same_size_and_other_bytes_fails(objects: MemoryObjects) -> None:
    _, manifest = put_checkpoint(objects)
    lie = changed_shard(replace(manifest, save=2), 0, etag="0" * 32, checksum="crc32:AAAAAA==")

    assert "ETag" in problem(put_manifest(objects, lie), objects)


def test_another_etag_with_the_same_checksum_passes(objects: MemoryObjects) -> None:
    _, manifest = put_checkpoint(objects)
    encrypted_anew = changed_shard(replace(manifest, save=2), 0, etag="0" * 32)

    assert verify(put_manifest(objects, encrypted_anew), objects, START).ok


def test_another_etag_without_any_checksum_to_compare_fails(objects: MemoryObjects) -> None:
    _, manifest = put_checkpoint(objects)
    unknown = changed_shard(replace(manifest, save=2), 0, etag="0" * 32, checksum="")

    assert "ETag" in problem(put_manifest(objects, unknown), objects)


def test_a_shard_under_a_delete_marker_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, manifest = written
    objects.hide(manifest.shards[0].key)

    assert f"{manifest.shards[0].key} was deleted or overwritten" in problem(commit, objects)


def test_an_overwritten_shard_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, manifest = written
    objects.overwrite(manifest.shards[0].key, b"weights")

    assert f"{manifest.shards[0].key} was deleted or overwritten" in problem(commit, objects)


def test_a_missing_manifest_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, _ = written
    objects.remove(commit.manifest_key)

    assert commit.manifest_key in problem(commit, objects)


def test_a_manifest_that_was_altered_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, _ = written
    objects.truncate(commit.manifest_key, 40)

    assert "its digest differs" in problem(commit, objects)


def test_a_manifest_whose_bytes_rotted_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, _ = written
    objects.damage(commit.manifest_key)

    assert commit.manifest_key in problem(commit, objects)


def test_another_manifest_put_on_top_changes_nothing(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    commit, manifest = written
    objects.overwrite(commit.manifest_key, replace(manifest, step=999).encode())

    assert verify(commit, objects, START).ok


def test_a_manifest_that_is_none_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    _, manifest = written
    commit = put_manifest_bytes(objects, replace(manifest, save=2), b'{"run_id": "run-1"}')

    assert "missing" in problem(commit, objects)


@pytest.mark.parametrize("change", [{"run_id": "run-2"}, {"generation": 2}, {"save": 5}, {"step": 11}])
def test_a_manifest_of_something_else_fails(
    objects: MemoryObjects, written: tuple[Commit, Manifest], change: dict[str, int]
) -> None:
    _, manifest = written
    other = replace(manifest, **change)  # type: ignore[arg-type]  # each field by its own name
    commit = replace(put_manifest_bytes(objects, replace(manifest, save=9), other.encode()), save=manifest.save)

    assert f"says {next(iter(change))}" in problem(commit, objects)


def test_a_shard_outside_of_the_run_fails(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    _, manifest = written
    stray = changed_shard(replace(manifest, save=2), 0, key="runs/run-2/shards/000001/000001/x.safetensors")

    assert "outside of its run" in problem(put_manifest(objects, stray), objects)


def test_a_manifest_of_a_newer_format_is_not_judged(objects: MemoryObjects, written: tuple[Commit, Manifest]) -> None:
    _, manifest = written
    later = replace(manifest, save=2)
    commit = put_manifest_bytes(objects, later, newer_format(later))

    with pytest.raises(UnknownFormat, match="upgrade"):
        verify(commit, objects, START)


@pytest.mark.parametrize("method", ["get", "list_versions"])
@pytest.mark.parametrize(("fault", "error"), [(Fault.UNAVAILABLE, Unavailable), (Fault.THROTTLE, Contention)])
def test_an_outage_gives_no_verdict(
    objects: MemoryObjects, written: tuple[Commit, Manifest], method: str, fault: Fault, error: type[Exception]
) -> None:
    commit, _ = written

    with pytest.raises(error):
        verify(commit, faulty(objects, Script({method: [fault]})), START)


def test_a_shard_that_the_listing_leaves_out_is_asked_for_by_name(
    objects: MemoryObjects, written: tuple[Commit, Manifest]
) -> None:
    class Forgetful(MemoryObjects):
        def list_versions(self, prefix: str) -> Iterator[StoredObject]:
            return iter([])

    forgetful = Forgetful()
    commit, manifest = put_checkpoint(forgetful)

    assert verify(commit, forgetful, START).ok
    forgetful.remove(manifest.shards[0].key)
    assert not verify(commit, forgetful, START).ok


def test_a_thousand_shards_cost_one_listing_and_no_question_for_each(objects: MemoryObjects) -> None:
    calls: list[str] = []
    commit, _ = put_checkpoint(objects, bodies=tuple(str(number).encode() for number in range(1000)))

    def draw(method: str) -> Fault:
        calls.append(method)
        return Fault.NONE

    verdict = verify(commit, faulty(objects, draw), START)

    assert verdict.ok and calls == ["get", "list_versions"]


def test_a_bucket_that_is_not_there_condemns_nothing(written: tuple[Commit, Manifest]) -> None:
    class NoBucket(MemoryObjects):
        def list_versions(self, prefix: str) -> Iterator[StoredObject]:
            raise Missing("the bucket is not there")

    commit, _ = written

    with pytest.raises(Unavailable, match="bucket"):
        verify(commit, NoBucket(), START)
