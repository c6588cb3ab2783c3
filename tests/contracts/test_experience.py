"""Both keepers of the account's experience pass their contract."""

from __future__ import annotations

import pytest

from spotrelay.aws.clients import Clients
from spotrelay.aws.experience_store import DynamoExperience
from spotrelay.core.errors import UnknownFormat
from spotrelay.core.lessons import Event, Lesson
from spotrelay.core.ports import ExperienceStore
from spotrelay.testing import MemoryExperience
from spotrelay.testing.contracts.experience import HERE, MACHINE, NOON, ExperienceContract


class TestMemoryExperience(ExperienceContract):
    @pytest.fixture
    def store(self) -> ExperienceStore:
        return MemoryExperience()


class TestDynamoExperience(ExperienceContract):
    @pytest.fixture
    def store(self, clients: Clients, table: str) -> ExperienceStore:
        return DynamoExperience(clients.client("dynamodb"), table)

    def test_what_a_newer_version_wrote_is_not_guessed_at(self, clients: Clients, table: str) -> None:
        dynamodb = clients.client("dynamodb")
        store = DynamoExperience(dynamodb, table)
        store.learn([Lesson(Event.GIVEN, HERE, NOON, MACHINE)])
        item = dynamodb.scan(TableName=table)["Items"][0]

        dynamodb.put_item(TableName=table, Item=item | {"schema": {"N": "9"}})

        with pytest.raises(UnknownFormat):
            store.recall()
