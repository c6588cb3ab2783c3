"""Checkpoints as files: written once for every version of the format, read for ever.

`python -m tests.formats.golden` writes one of the current version. A version that is there already is left alone:
what past releases wrote is what has to be readable, not what this one would write.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spotrelay.core.checkpoint import FORMAT, Commit, Manifest, Verdict, decode_manifest
from spotrelay.core.codec import from_json, to_json
from spotrelay.testing import MemoryObjects
from spotrelay.testing.objects import MemoryStream
from tests.formats import kinds
from tests.shim.world import RUN, World, eventually
from trainer_shim import shards

HOME = Path(__file__).parent
STEPS = 3


@dataclass(frozen=True)
class Golden:
    """One checkpoint in a folder."""

    folder: Path

    @property
    def commit(self) -> Commit:
        return from_json(Commit, json.loads((self.folder / "commit.json").read_bytes()))

    @property
    def manifest(self) -> Manifest:
        return decode_manifest((self.folder / "manifest.json").read_bytes())

    @property
    def expected(self) -> dict[str, str]:
        """Digests of what it holds."""
        found: dict[str, str] = json.loads((self.folder / "expected.json").read_bytes())
        return found

    def put_into(self, world: World) -> None:
        """Let it be the newest verified checkpoint of a run that was submitted."""
        commit = self.commit
        world.objects = _Filed(self)
        world.store.take_lease(RUN, commit.generation, "i-golden")
        world.store.commit(commit, "i-golden")
        world.store.release_lease(RUN, commit.generation, "i-golden")
        world.store.record_verdict(RUN, Verdict(commit.generation, commit.save, True, checked_at=datetime.now(UTC)))


class _Filed(MemoryObjects):
    """A bucket in which a golden checkpoint lies."""

    def __init__(self, golden: Golden) -> None:
        super().__init__()
        commit = golden.commit
        places = [(shard.key, shard.version_id) for shard in golden.manifest.shards]
        self._files = {place: golden.folder / place[0].rpartition("/")[2] for place in places}
        self._files[commit.manifest_key, commit.manifest_version] = golden.folder / "manifest.json"

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> MemoryStream:
        file = self._files.get((key, str(version_id)))
        return MemoryStream(key, file.read_bytes(), start) if file else super().stream(key, version_id, start)


def goldens() -> list[Golden]:
    """One of every version, oldest first."""
    return [Golden(folder) for folder in sorted(HOME.glob("[0-9]*"), key=lambda folder: int(folder.name))]


def digests(given: dict[str, Any]) -> dict[str, str]:
    """What was attached, as digests of its parts."""
    parts = {f"{name}/{key}": value for name, part in kinds.state(given).items() for key, value in part.items()}
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in parts.items()}


def write(folder: Path) -> None:
    """Write a checkpoint of everything that one can hold."""
    patch = pytest.MonkeyPatch()
    patch.setattr(shards, "LIMIT", 4000)  # so that there are several shards, and arrays cut into pieces
    world = World(patch)
    world.submit()
    given = kinds.parts(STEPS)
    run = world.attach(1, **given)
    run.step(0.25)
    checkpoint = eventually(lambda: world.checkpoints, "it is committed")[0]
    world.close()
    patch.undo()
    folder.mkdir(parents=True)
    commit = checkpoint.commit
    manifest = world.objects.get(commit.manifest_key, commit.manifest_version)
    (folder / "commit.json").write_text(json.dumps(to_json(commit), indent=1, sort_keys=True) + "\n")
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "expected.json").write_text(json.dumps(digests(given), indent=1, sort_keys=True) + "\n")
    for key, version in world.shards(checkpoint):
        (folder / key.rpartition("/")[2]).write_bytes(world.objects.get(key, version))


if __name__ == "__main__":
    where = HOME / str(FORMAT)
    if where.exists():
        sys.exit(f"{where} is there already: it stays as it was written")
    write(where)
