"""A MiniStack for the session, and clients as in production. Nothing here reaches AWS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import boto3
import pytest

from spotrelay.aws.clients import Clients
from spotrelay.aws.layout import table_definition
from spotrelay.testing.ministack import ministack

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
    return Clients(REGION, boto3.Session(region_name=REGION))


@pytest.fixture
def offline(no_account: None) -> Clients:
    """Clients for stubbed answers; a request that is not stubbed would find nobody."""
    return Clients(REGION, boto3.Session(region_name=REGION))


@pytest.fixture
def table(clients: Clients) -> str:
    name = f"spotrelay-{secrets.token_hex(4)}"
    clients.client("dynamodb").create_table(**table_definition(name))
    return name


@pytest.fixture
def bucket(clients: Clients) -> str:
    name = f"spotrelay-{secrets.token_hex(6)}"
    s3 = clients.client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name
