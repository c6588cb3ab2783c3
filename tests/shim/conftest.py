"""A fresh world for each test, and everything of it ended afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.instance.cloud import Cloud, ministack
from tests.shim.cluster import Cluster, Nursery, nursery
from tests.shim.world import World

torch.set_num_threads(1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Ports in memory and the environment of an attempt."""
    made = World(monkeypatch)
    yield made
    made.close()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """S3, DynamoDB and EventBridge over HTTP on loopback."""
    with ministack(tmp_path_factory.mktemp("ministack")) as endpoint:
        made = Cloud(endpoint)
        made.create()
        yield made


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts training processes."""
    with nursery(tmp_path_factory.mktemp("children")) as made:
        yield made


@pytest.fixture
def cluster(emulator: Cloud, children: Nursery) -> Cluster:
    """A run of its own in the emulated cloud, submitted."""
    made = Cluster(emulator, children)
    made.submit()
    return made
