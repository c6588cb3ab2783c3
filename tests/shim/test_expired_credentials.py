"""Credentials that expire in the middle of an upload, while the metadata service still hands out the old ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import RefreshableCredentials

from spotrelay.aws.clients import Clients
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.core.spec import Cadence
from tests.instance.cloud import BUCKET, Cloud
from tests.shim.training import build, digest, train
from tests.shim.world import RUN, World, eventually
from trainer_shim import wiring

ANSWER = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class Role:
    """The instance's role: its old credentials are refused by S3, new ones come when the test says so."""

    def __init__(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        self.refreshed = threading.Event()
        self.expired = threading.Event()
        self.refused = 0
        core = botocore.session.get_session()
        mine = RefreshableCredentials.create_from_metadata(self._hand_out(), self._hand_out, "imds")
        core._credentials = mine  # type: ignore[attr-defined]  # there is no public way to give refreshable ones
        self.s3 = Clients("us-east-1", core).client("s3")
        self.s3.meta.events.register("before-send.s3", self._check)

    def _hand_out(self) -> dict[str, str]:
        until = datetime.now(UTC) + timedelta(minutes=5)  # so near that every request asks for newer ones
        name = "NEW" if self.refreshed.is_set() else "OLD"
        return {"access_key": name, "secret_key": "s", "token": name, "expiry_time": until.isoformat()}

    def _check(self, request: Any, **_: Any) -> AWSResponse | None:
        signed = request.headers["Authorization"]
        if not self.expired.is_set() or "Credential=NEW/" in str(signed):
            return None
        self.refused += 1
        return AWSResponse(request.url, 400, HTTPHeaders(), _Body())


class _Body:
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield ANSWER


def test_a_save_outlives_its_credentials_and_training_does_not_wait_for_it(
    world: World, emulator: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(emulator.endpoint, monkeypatch)
    objects = S3ObjectStore(role.s3, BUCKET)
    world.ports = wiring.Ports(world.store, objects, world.publisher)
    world.submit(Cadence(every_steps=4))
    seen: list[tuple[int, list[int]]] = []

    def after(run: Any, steps: int) -> None:
        flight = run._session._saver.flight
        if steps in (5, 11) and flight is not None:
            assert flight.over.wait(20)  # a first one with good credentials; the one that met refusals, once mended
        if steps == 7:
            role.expired.set()
        if steps == 9:
            eventually(lambda: role.refused >= 3, "S3 refused the old credentials again and again")
            eventually(lambda: "ExpiredToken" in _trouble(world), "the heartbeat tells of it")
        if steps == 10:
            role.refreshed.set()
        seen.append((steps, world.steps_committed()))

    parts = build()
    train(lambda **given: world.attach(1, **given), parts, 16, after)

    assert dict(seen)[10] == [4]  # nothing since they expired, and the training went on all the same
    assert dict(seen)[11] == [4, 8]  # the very save that met the refusals
    assert world.steps_committed()[-1] == 16
    assert _trouble(world) == ""
    world.hand_over(2)
    again = build()
    assert world.attach(2, **again.attached(), extra={}).resumed_from == 16
    assert digest(again.model) == digest(parts.model)


def _trouble(world: World) -> str:
    beat = world.store.load(RUN).heartbeat(1)
    return beat.trouble if beat is not None else ""
