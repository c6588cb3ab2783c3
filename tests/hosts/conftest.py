"""A lab of two hosts for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.lab import Lab
from tests.hosts.sshd import Sshd, sshd


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Sshd]]:
    """Two hosts, started once; a test that stops one finds it running again."""
    home = tmp_path_factory.mktemp("hosts")
    with sshd(home / "lab1", "lab1") as one, sshd(home / "lab2", "lab2") as two:
        yield one, two


@pytest.fixture
def lab(servers: tuple[Sshd, Sshd]) -> Iterator[Lab]:
    """Both, with no machine on them."""
    made = Lab(*servers)
    yield made
    made.clear()
    for server in servers:
        server.start()
