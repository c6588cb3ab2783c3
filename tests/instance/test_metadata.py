from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spotrelay.core.errors import Unavailable
from spotrelay.instance.metadata import Metadata, Reclaim, parse_reclaim
from tests.instance.metadata_server import FakeMetadata


def test_nothing_announced_is_none(metadata: FakeMetadata) -> None:
    assert Metadata(metadata.address).reclaim() is None


def test_an_announcement_is_read_with_its_deadline(metadata: FakeMetadata) -> None:
    metadata.announce_reclaim()

    assert Metadata(metadata.address).reclaim() == Reclaim("terminate", datetime(2035, 1, 1, 0, 2, tzinfo=UTC))


def test_a_token_that_has_run_out_is_replaced(metadata: FakeMetadata) -> None:
    service = Metadata(metadata.address)
    service.reclaim()
    metadata.first_answers = [401]

    assert service.reclaim() is None


@pytest.mark.parametrize("status", [403, 500, 503, 0])
def test_no_clear_answer_is_neither_yes_nor_no(status: int, metadata: FakeMetadata) -> None:
    metadata.first_answers = [status] * 4

    with pytest.raises(Unavailable):
        Metadata(metadata.address).reclaim()


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        Metadata("http://127.0.0.1:9").reclaim()


@pytest.mark.parametrize("text", ["", "soon", "[]", '{"action": "stop", "time": "soon"}', '{"action": "stop"}'])
def test_an_announcement_that_cannot_be_read_is_still_one(text: str) -> None:
    assert parse_reclaim(text).deadline is None
