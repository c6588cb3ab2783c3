"""A machine whose disk is full: the shim needs none of it, and says what it does without."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from spotrelay.core.spec import Cadence
from tests.shim.training import STEPS, build, digest, train
from tests.shim.world import World


def full(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on nothing new fits into this folder."""
    real_open, real_mkdir = Path.open, Path.mkdir

    def refuse(path: Path) -> None:
        if path.is_relative_to(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def opening(path: Path, mode: str = "r", *args: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(path)
        return real_open(path, mode, *args, **named)

    def making(path: Path, *args: Any, **named: Any) -> None:
        refuse(path)
        real_mkdir(path, *args, **named)

    monkeypatch.setattr(Path, "open", opening)
    monkeypatch.setattr(Path, "mkdir", making)


def trained(world: World, generation: int, total: int) -> Any:
    return train(lambda **given: world.attach(generation, **given), build(), total)


def test_a_full_disk_keeps_no_attempt_from_training_and_saving(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.folders = {"SPOTRELAY_STATE": str(tmp_path / "state"), "SPOTRELAY_CACHE": str(tmp_path / "cache")}
    world.submit(Cadence(every_steps=1000))
    full(monkeypatch, tmp_path)

    with caplog.at_level("INFO"):
        trained(world, 1, 8)

    assert world.steps_committed() == [8]
    assert "No space left on device" in caplog.text
    assert "harms nothing" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["cut short", "empty", "right length and wrong bytes", "unreadable"])
def test_a_cache_that_a_full_disk_has_spoilt_never_reaches_the_model(world: World, tmp_path: Path, harm: str) -> None:
    world.submit(Cadence(every_steps=1000))
    parts = build()
    train(lambda **given: world.attach(1, **given), parts, 8)
    world.hand_over(2)
    for key, version in world.shards(world.checkpoints[0]):
        body = world.objects.get(key, version)
        file = tmp_path / key.rpartition("/")[2]
        if harm == "unreadable":
            file.mkdir()
        else:
            file.write_bytes(
                {"cut short": body[:-100], "empty": b"", "right length and wrong bytes": bytes(len(body))}[harm]
            )
    world.folders = {"SPOTRELAY_CACHE": str(tmp_path)}
    again = build()

    run = world.attach(2, **again.attached(), extra={})

    assert run.resumed_from == 8
    assert digest(again.model) == digest(parts.model)


def test_a_disk_that_fills_up_between_two_attempts_changes_no_bit(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # undone before the attempts that are compared with it
        alone = World(patch)
        alone.submit()
        whole = trained(alone, 1, STEPS)
        alone.close()
    world.folders = {"SPOTRELAY_STATE": str(tmp_path / "state"), "SPOTRELAY_CACHE": str(tmp_path / "cache")}
    world.submit()
    trained(world, 1, 12)
    world.hand_over(2)
    full(monkeypatch, tmp_path)

    resumed = trained(world, 2, STEPS)

    assert resumed.digest == whole.digest
    assert resumed.seen == whole.seen
