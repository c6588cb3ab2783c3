"""How the metadata service is asked, and how little of what it does can disturb anybody."""

from __future__ import annotations

import email.utils
import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.shim.imds import NOTICE, Imds, serving
from trainer_shim.metadata import Metadata, NoMetadata

LEAD = timedelta(minutes=2)


@pytest.fixture
def imds() -> Iterator[Imds]:
    with serving() as served:
        yield served


def test_a_quiet_machine_has_nothing_announced(imds: Imds) -> None:
    metadata = Metadata(imds.endpoint)

    assert metadata.action(LEAD) is None
    assert metadata.rebalance() is None


def test_a_notice_says_what_and_how_long(imds: Imds) -> None:
    imds.announce("stop", timedelta(seconds=90))

    found = Metadata(imds.endpoint).action(LEAD)

    assert found is not None
    assert found.action == "stop"
    assert timedelta(seconds=85) < found.left <= timedelta(seconds=90)


def test_a_hibernation_leaves_no_time_at_all(imds: Imds) -> None:
    imds.announce("hibernate", timedelta(seconds=90))

    found = Metadata(imds.endpoint).action(LEAD)

    assert found is not None
    assert found.left == timedelta(0)


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)], ids=["fast", "slow"])
def test_a_clock_that_is_an_hour_off_stretches_nothing(imds: Imds, off: timedelta) -> None:
    imds.announce(left=timedelta(seconds=100) + off)

    found = Metadata(imds.endpoint).action(LEAD)

    assert found is not None
    assert LEAD / 2 <= found.left <= LEAD


def test_the_services_own_clock_is_believed_before_ours(imds: Imds) -> None:
    imds.date = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    imds.announce(left=timedelta(hours=3, seconds=60))

    found = Metadata(imds.endpoint).action(LEAD)

    assert found is not None
    assert timedelta(seconds=55) < found.left < timedelta(seconds=65)


def test_an_expired_token_is_renewed(imds: Imds) -> None:
    metadata = Metadata(imds.endpoint)
    assert metadata.action(LEAD) is None
    imds.token = "token-2"
    imds.announce()

    assert metadata.action(LEAD) is not None


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_a_failing_service_is_no_answer_rather_than_a_no(imds: Imds, status: int) -> None:
    metadata = Metadata(imds.endpoint)
    imds.failures = [status]

    with pytest.raises(NoMetadata):
        metadata.action(LEAD)

    assert metadata.action(LEAD) is None


@pytest.mark.parametrize("body", [b"", b"soon", b"[]", b"{}", b'{"action": "terminate", "time": "soon"}', b"\xff\xfe"])
def test_an_announcement_that_makes_no_sense_is_no_answer(imds: Imds, body: bytes) -> None:
    imds.said[NOTICE] = body

    with pytest.raises(NoMetadata):
        Metadata(imds.endpoint).action(LEAD)


def test_a_machine_without_the_service_is_told_at_once() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        begun = time.monotonic()

        with pytest.raises(NoMetadata):
            Metadata(endpoint).action(LEAD)

    assert time.monotonic() - begun < 3


def test_extra_keys_do_not_matter(imds: Imds) -> None:
    imds.said[NOTICE] = json.dumps({"action": "terminate", "time": "2020-01-01T00:00:00Z", "new": [1]}).encode()

    assert Metadata(imds.endpoint).action(LEAD) is not None
