"""What every `Publisher` must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from spotrelay.core.ports import Publisher


@dataclass(frozen=True)
class PublisherUnderTest:
    """An implementation, and an ear on the bus: (kind, detail) of what was heard, in any order."""

    publisher: Publisher
    heard: Callable[[int], list[tuple[str, dict[str, Any]]]]  # waits for that many


class PublisherContract:
    """Inherit, and give it `bus`."""

    @pytest.fixture
    def bus(self) -> PublisherUnderTest:
        """The implementation under test."""
        raise NotImplementedError("give the suite its publisher")

    def test_an_event_arrives_with_its_kind_and_detail(self, bus: PublisherUnderTest) -> None:
        detail = {"run_id": "r1", "generation": 2, "text": 'a "quote" and ü', "nested": {"a": [1, None, 0.5]}}

        bus.publisher.publish("Attempt Reported", detail)

        assert bus.heard(1) == [("Attempt Reported", detail)]

    def test_every_event_arrives(self, bus: PublisherUnderTest) -> None:
        for save in range(5):
            bus.publisher.publish("Checkpoint Committed", {"run_id": "r1", "save": save})

        assert sorted(detail["save"] for _, detail in bus.heard(5)) == [0, 1, 2, 3, 4]
