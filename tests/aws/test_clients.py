"""Clients never hang where there is no AWS."""

from __future__ import annotations

import socket
import time

import pytest
from botocore.session import get_session

from spotrelay.aws.clients import ATTEMPTS, Clients
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.errors import Unavailable


def test_without_credentials_the_first_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(Unavailable, match="no AWS credentials"):
        Clients("us-east-1").client("dynamodb")


def test_credentials_that_come_later_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    clients = Clients("us-east-1")
    with pytest.raises(Unavailable):
        clients.client("dynamodb")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")

    assert clients.client("dynamodb").meta.region_name == "us-east-1"


def test_a_service_that_does_not_listen_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        store = DynamoRunStore(Clients("us-east-1", get_session()).client("dynamodb"), "table")

        begun = time.monotonic()
        with pytest.raises(Unavailable):
            store.load("r1")

    assert time.monotonic() - begun < 20


def test_a_client_is_made_once_for_each_service_and_region(offline: Clients) -> None:
    assert offline.client("ec2") is offline.client("ec2", "us-east-1")
    assert offline.client("ec2") is not offline.client("ec2", "eu-west-1")
    assert offline.client("ec2") is not offline.launcher("us-east-1")


def test_only_a_launch_is_never_repeated_by_the_sdk(offline: Clients) -> None:
    assert offline.launcher("us-east-1").meta.config.retries["total_max_attempts"] == 1
    assert offline.client("ec2").meta.config.retries["total_max_attempts"] == ATTEMPTS
