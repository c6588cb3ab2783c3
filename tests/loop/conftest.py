"""The embedded cloud that the tests of the whole loop use, unless a file deploys one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import assembly_or_skip
from tests.loop.shell import SCALE


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """One with the stack in it, for a file's tests."""
    assembly = assembly_or_skip()
    with LocalCloud(tmp_path_factory.mktemp("cloud"), SCALE) as cloud:
        cloud.deploy(assembly)
        yield cloud
