"""What a machine fetches ahead comes from the replica beside it, if all of the checkpoint was found there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spotrelay.core.errors import Unavailable
from spotrelay.core.replica import Replica
from spotrelay.core.run import Run
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.nearness import bucket_for
from spotrelay.instance.prefetch import Prefetch
from spotrelay.testing import Fault, MemoryObjects, faulty
from tests.instance.attempts import a_run, a_spec, store_checkpoint

AWAY, COPY = "us-west-2", "the-copy"


class Machine:
    """A machine beside a replica, and how often each bucket was asked."""

    def __init__(self) -> None:
        self.home, self.copy, self.logbook = MemoryObjects(), MemoryObjects(), Logbook()
        self.asked: list[str] = []
        self.checkpoint = store_checkpoint(self.home, 1, (b"weights", b"optimizer"))
        self.home.replicate(self.copy)

    def fetched(self, replica: Replica | None, folder: Path, nearby: Any = None) -> set[bytes]:
        """The bodies in the cache."""
        run: Run = replace(a_run(a_spec()), checkpoints=(self.checkpoint,), replicas=(replica,) if replica else ())
        beside = nearby or (lambda bucket: self._counted(bucket, self.copy))
        services: Any = SimpleNamespace(objects=self._counted("home", self.home), nearby=beside)
        prefetch = Prefetch(services.objects, self.logbook, folder, disk_reserve=0)
        prefetch.start(run.checkpoints, bucket_for(run, AWAY, services, self.logbook))
        assert prefetch.join(20)
        return {path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}

    def _counted(self, name: str, store: MemoryObjects) -> Any:
        def draw(method: str) -> Fault:
            self.asked.append(name)
            return Fault.NONE

        return faulty(store, draw)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_complete_replica_is_fetched_from(machine: Machine, tmp_path: Path) -> None:
    assert machine.fetched(Replica(AWAY, COPY, "1.1", complete=True), tmp_path) == {b"weights", b"optimizer"}
    assert set(machine.asked) == {COPY}


def test_a_shard_that_it_lacks_is_fetched_from_home(machine: Machine, tmp_path: Path) -> None:
    machine.copy.remove(next(machine.copy.list_versions("runs/run-1/shards/")).key)

    assert machine.fetched(Replica(AWAY, COPY, "1.1", complete=True), tmp_path) == {b"weights", b"optimizer"}
    assert machine.asked.count("home") == 1
    assert "read at home instead of nearby" in machine.logbook.tail()


@pytest.mark.parametrize(
    "replica",
    [None, Replica(AWAY, COPY, "1.1"), Replica(AWAY, COPY, "1.0", complete=True), Replica("x", COPY, "1.1", True)],
    ids=["none", "incomplete", "of another checkpoint", "elsewhere"],
)
def test_otherwise_home_is(machine: Machine, tmp_path: Path, replica: Replica | None) -> None:
    assert machine.fetched(replica, tmp_path) == {b"weights", b"optimizer"}
    assert set(machine.asked) == {"home"}


def test_without_credentials_for_it_home_is(machine: Machine, tmp_path: Path) -> None:
    def refuse(bucket: str) -> MemoryObjects:
        raise Unavailable("no AWS credentials were found")

    found = machine.fetched(Replica(AWAY, COPY, "1.1", complete=True), tmp_path, refuse)

    assert found == {b"weights", b"optimizer"}
    assert "home is: no AWS credentials" in machine.logbook.tail()
