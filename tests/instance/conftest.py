"""Machines, metadata and a small cloud, made anew for each test; no test can reach the real shutdown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.instance.cloud import AGENTS, BUCKET, BUS, TABLE, Cloud, ministack
from tests.instance.machine import Machine, python_path, write_program
from tests.instance.metadata_server import FakeMetadata, serving

Boot = Callable[..., Machine]


@pytest.fixture(autouse=True, scope="session")
def harmless_shutdown(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put a `shutdown` that only takes notes first in this process's PATH, and leave it there.

    It is not taken back: a thread that outlives its test must not find the real one either.
    """
    folder = tmp_path_factory.mktemp("harmless")
    note = '#!/bin/sh\necho "$@" >>"${SPOTRELAY_TEST_HALTS:-/dev/null}"\n'
    shutdown = write_program(folder / "shutdown", note)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    assert shutil.which("shutdown") == str(shutdown)


@pytest.fixture(autouse=True)
def halts(harmless_shutdown: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a `shutdown` called by this process notes its arguments."""
    record = tmp_path_factory.mktemp("halts") / "calls"
    monkeypatch.setenv("SPOTRELAY_TEST_HALTS", str(record))
    return record


@pytest.fixture
def metadata() -> Iterator[FakeMetadata]:
    """The metadata service of one machine."""
    with serving(FakeMetadata()) as served:
        yield served


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One emulated cloud for all tests of a worker; every test has a run id of its own."""
    with ministack(tmp_path_factory.mktemp("ministack")) as endpoint:
        cloud = Cloud(endpoint)
        cloud.create()
        yield cloud


@pytest.fixture
def values() -> dict[str, str]:
    """Values of the resume script's placeholders, by name."""
    return {
        "AGENT_BUCKET": AGENTS,
        "AGENT_KEY": "agent.zip",
        "AGENT_SHA256": "0" * 64,
        "TABLE": TABLE,
        "BUCKET": BUCKET,
        "BUS": BUS,
        "HOME_REGION": "us-east-1",
        "STACK": "Spotrelay",
        "PYTHON": python_path(),
        "TIME_SCALE": "0.01",
    }


@pytest.fixture
def new_machine(tmp_path: Path, metadata: FakeMetadata) -> Iterator[Boot]:
    """Makes machines that see `metadata`; all of them are killed at the end."""
    made: list[Machine] = []

    def make(endpoint: str = "http://127.0.0.1:9", leftover: dict[str, str] | None = None, **named: str) -> Machine:
        folder = tmp_path / f"machine-{len(made)}"
        folder.mkdir()
        where = {"AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.address}
        machine = Machine(folder, {**where, **(leftover or {})}, **named)
        made.append(machine)
        return machine

    yield make
    for machine in made:
        machine.kill()
