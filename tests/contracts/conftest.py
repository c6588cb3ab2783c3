"""A MiniStack for the session, with a table and a bucket of our layout for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.session import get_session

from spotrelay.aws.clients import Clients
from spotrelay.testing.ministack import ministack
from tests.aws.resources import new_bucket, new_table

REGION = "us-east-1"


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("ministack")
    with ministack(folder) as address:
        yield address


@pytest.fixture
def clients(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Clients as in production, told by the SDK's own variables where AWS is; an account for each test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{secrets.randbelow(10**12):012d}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return Clients(REGION, get_session())


@pytest.fixture
def table(clients: Clients) -> str:
    return new_table(clients)


@pytest.fixture
def bucket(clients: Clients) -> str:
    return new_bucket(clients)


@pytest.fixture(params=[10, pytest.param(200, marks=pytest.mark.long)], ids=["short", "long"])
def rounds(request: pytest.FixtureRequest) -> int:
    """How often each race is run."""
    count: int = request.param
    return count
