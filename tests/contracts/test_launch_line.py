"""Both lines of throttled launches pass their contract."""

from __future__ import annotations

import pytest

from spotrelay.aws.clients import Clients
from spotrelay.aws.launch_line import DynamoLine
from spotrelay.testing import Ends, MemoryLine
from spotrelay.testing.contracts.launch_line import PACE, LaunchLineContract, NewLine


class TestMemoryLine(LaunchLineContract):
    @pytest.fixture
    def new_line(self) -> NewLine:
        ends = Ends()
        return lambda: MemoryLine(PACE, ends)


class TestDynamoLine(LaunchLineContract):
    @pytest.fixture
    def new_line(self, clients: Clients, table: str) -> NewLine:
        return lambda: DynamoLine(clients.client("dynamodb"), table, PACE)
