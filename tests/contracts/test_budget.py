"""Both keepers of the account's books pass their contract."""

from __future__ import annotations

import pytest

from spotrelay.aws.budget_cells import DynamoCells
from spotrelay.aws.clients import Clients
from spotrelay.core.budget import Cells
from spotrelay.core.errors import UnknownFormat
from spotrelay.testing import MemoryCells
from spotrelay.testing.contracts.budget import DAY, CellsContract, hold


class TestMemoryCells(CellsContract):
    @pytest.fixture
    def cells(self) -> Cells:
        return MemoryCells()


class TestDynamoCells(CellsContract):
    @pytest.fixture
    def cells(self, clients: Clients, table: str) -> Cells:
        return DynamoCells(clients.client("dynamodb"), table)

    def test_what_a_newer_version_wrote_is_not_guessed_at(self, clients: Clients, table: str) -> None:
        dynamodb = clients.client("dynamodb")
        cells = DynamoCells(dynamodb, table)
        cells.put(3, hold(), None, None)
        item = dynamodb.scan(TableName=table)["Items"][0]

        dynamodb.put_item(TableName=table, Item=item | {"schema": {"N": "9"}})

        with pytest.raises(UnknownFormat):
            cells.look(DAY, 3)
