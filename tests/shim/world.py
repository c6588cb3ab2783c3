"""A small world for an attempt: ports in memory, an environment, and the control plane's part played by hand."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

import trainer_shim
from spotrelay.core.checkpoint import Checkpoint, SaveReason, Verdict, decode_manifest
from spotrelay.core.run import Run
from spotrelay.core.spec import Cadence, NoCheckpoint, Spec
from spotrelay.testing import MemoryObjects, MemoryPublisher, MemoryStore
from trainer_shim import wiring

RUN = "run-1"
SCALE = 0.02  # of every waiting time


def eventually(holds: Callable[[], Any], what: str, within_s: float = 20.0) -> Any:
    """The first truth that `holds` returns; fails the test when none comes in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {within_s} s: {what}")


def new_run(cadence: Cadence | None = None, on_no_checkpoint: NoCheckpoint = NoCheckpoint.RESTART) -> Run:
    """A run as `submit` makes it; a checkpoint after every step unless told otherwise."""
    spec = Spec(
        ("python", "train.py"),
        ("g5.xlarge",),
        cadence=cadence or Cadence(every_steps=1),
        on_no_checkpoint=on_no_checkpoint,
    )
    return Run(RUN, spec, datetime.now(UTC))


@dataclass
class World:
    """In-memory ports and the environment of an attempt."""

    monkeypatch: pytest.MonkeyPatch
    store: MemoryStore = field(default_factory=MemoryStore)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    ports: wiring.Ports | None = None  # what the shim gets instead, perhaps with faults
    metadata: str = ""
    folders: dict[str, str] = field(default_factory=dict)
    open: list[Any] = field(default_factory=list)

    def submit(self, cadence: Cadence | None = None, on_no_checkpoint: NoCheckpoint = NoCheckpoint.RESTART) -> None:
        """Create the run."""
        self.store.create(new_run(cadence, on_no_checkpoint))

    def change(self, **changes: Any) -> None:
        """Change the run's row, as the control plane."""
        before = self.store.load(RUN)
        self.store.save(before, replace(before, **changes))

    def environ(self, generation: int = 1) -> dict[str, str]:
        """What the agent would give to the program."""
        metadata = (
            {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata}
            if self.metadata
            else {"AWS_EC2_METADATA_DISABLED": "true"}
        )
        return {
            "SPOTRELAY_RUN": RUN,
            "SPOTRELAY_GENERATION": str(generation),
            "SPOTRELAY_INSTANCE": f"i-{generation:08x}",
            "SPOTRELAY_TABLE": "table",
            "SPOTRELAY_BUCKET": "bucket",
            "SPOTRELAY_BUS": "bus",
            "SPOTRELAY_HOME_REGION": "us-east-1",
            "SPOTRELAY_TIME_SCALE": str(SCALE),
            **metadata,
            **self.folders,
        }

    def attach(self, generation: int = 1, **attached: Any) -> Any:
        """`trainer_shim.attach` as the script of this attempt calls it."""
        self._become(generation)
        run = trainer_shim.attach(**attached)
        self.open.append(run)
        return run

    def resume(self, generation: int, trainer: Any) -> Any:
        """`trainer_shim.resume` as the script of this attempt calls it."""
        self._become(generation)
        self.monkeypatch.setattr(atexit, "register", lambda close: self.open.append(SimpleNamespace(close=close)))
        return trainer_shim.resume(trainer)

    def _become(self, generation: int) -> None:
        for name in [name for name in os.environ if name.startswith("SPOTRELAY_")]:
            self.monkeypatch.delenv(name)
        for name, value in self.environ(generation).items():
            self.monkeypatch.setenv(name, value)
        ports = self.ports or wiring.Ports(self.store, self.objects, self.publisher)
        self.monkeypatch.setattr(wiring, "connect", lambda identity: ports)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Newest first."""
        return self.store.checkpoints(RUN)

    def steps_committed(self) -> list[int]:
        """Steps of all checkpoints, oldest first."""
        return [c.commit.step for c in reversed(self.checkpoints)]

    def verify(self) -> None:
        """Call every pending checkpoint good, as the control plane does after it has compared it with S3."""
        for checkpoint in self.checkpoints:
            if checkpoint.pending:
                where = checkpoint.id
                self.store.record_verdict(
                    RUN, Verdict(where.generation, where.save, True, checked_at=datetime.now(UTC))
                )

    def hand_over(self, floor: int) -> None:
        """Verify what there is and fence every attempt below `floor`."""
        self.verify()
        self.store.fence(RUN, floor)

    def shards(self, checkpoint: Checkpoint) -> list[tuple[str, str]]:
        """Keys and versions of a checkpoint's shards."""
        commit = checkpoint.commit
        manifest = decode_manifest(self.objects.get(commit.manifest_key, commit.manifest_version))
        return [(shard.key, shard.version_id) for shard in manifest.shards]

    def reasons(self) -> list[SaveReason]:
        """Why each checkpoint was taken, oldest first."""
        return [c.commit.reason for c in reversed(self.checkpoints)]

    def close(self) -> None:
        """End every thread that the attempts of this test have started."""
        for run in self.open:
            run.close()


@contextmanager
def left_with(code: int) -> Iterator[None]:
    """The block ends in this exit status."""
    with pytest.raises(SystemExit) as leaving:
        yield
    assert leaving.value.code == code
