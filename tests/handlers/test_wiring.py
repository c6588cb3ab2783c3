"""The wires of a function: what a cold start makes, and what waits for its first use."""

from __future__ import annotations

from typing import Any

import pytest

from handlers import settings
from handlers.settings import read_settings
from handlers.telemetry import PowertoolsTelemetry
from handlers.wiring import control_plane
from spotrelay.aws.clients import Clients
from tests.handlers.test_settings import ENVIRONMENT


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services whose clients were made, in their order."""
    services: list[str] = []
    make = Clients.client

    def client(self: Clients, service: str, region: str | None = None) -> Any:
        services.append(service)
        return make(self, service, region)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(Clients, "client", client)
    return services


def test_a_cold_start_makes_the_client_that_every_event_needs_and_no_other(made: list[str]) -> None:
    telemetry: Any = PowertoolsTelemetry.__new__(PowertoolsTelemetry)
    found = read_settings(
        {**ENVIRONMENT, settings.RUNS_QUEUE: "https://queue", settings.REPLICAS: '{"eu-west-1": "b"}'}
    )

    plane = control_plane(found, telemetry)

    assert made == ["dynamodb"]
    assert plane.objects.bucket == "bucket"  # type: ignore[attr-defined]
    assert made == ["dynamodb", "s3"]
