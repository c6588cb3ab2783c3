"""A MiniStack for the session, and clients as in production. Nothing here reaches AWS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from botocore.session import get_session

from spotrelay.aws.clients import Clients
from spotrelay.testing.ministack import ministack
from tests.aws.resources import new_bucket, new_table

REGION = "us-east-1"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds anybody's credentials, settings or metadata service."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{secrets.randbelow(10**12):012d}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ministack(tmp_path_factory.mktemp("ministack")) as address:
        yield address


@pytest.fixture
def clients(no_account: None, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Clients of the MiniStack, with an account of its own for each test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return Clients(REGION, get_session())


@pytest.fixture
def offline(no_account: None) -> Clients:
    """Clients for stubbed answers; a request that is not stubbed would find nobody."""
    return Clients(REGION, get_session())


@pytest.fixture
def table(clients: Clients) -> str:
    return new_table(clients)


@pytest.fixture
def bucket(clients: Clients) -> str:
    return new_bucket(clients)
