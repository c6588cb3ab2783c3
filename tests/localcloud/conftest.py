"""One embedded cloud for the tests that need one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from spotrelay.localcloud.client import LocalCloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A running embedded cloud; tests name their resources apart."""
    with LocalCloud(tmp_path_factory.mktemp("cloud"), time_scale=1.0) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}"
