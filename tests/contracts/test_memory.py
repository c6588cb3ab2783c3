"""The in-memory ports pass every contract."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.core.placement import FailureScope, Pool
from spotrelay.core.ports import Clock, ObjectStore
from spotrelay.testing import ManualClock, MemoryMachines, MemoryObjects, MemoryPublisher, MemoryStore, MemorySwitch
from spotrelay.testing.contracts.live_store import LiveStoreContract
from spotrelay.testing.contracts.machines import ChoosingContract, Ec2UnderTest
from spotrelay.testing.contracts.object_store import ObjectStoreContract
from spotrelay.testing.contracts.publisher import PublisherContract, PublisherUnderTest
from spotrelay.testing.contracts.run_store import RunStoreContract
from spotrelay.testing.contracts.samples import Stores
from spotrelay.testing.contracts.signals import ClockContract, SwitchContract, SwitchUnderTest


class RaceAtLength:
    """Takes the rounds from the folder's fixture instead of the suite's own."""

    @pytest.fixture
    def rounds(self, rounds: int) -> int:
        return rounds


class TestMemoryRunStore(RaceAtLength, RunStoreContract):
    @pytest.fixture
    def stores(self) -> Stores:
        store = MemoryStore()
        return Stores(store, store)


class TestMemoryLiveStore(RaceAtLength, LiveStoreContract):
    @pytest.fixture
    def stores(self) -> Stores:
        store = MemoryStore()
        return Stores(store, store)


class TestMemoryObjects(RaceAtLength, ObjectStoreContract):
    @pytest.fixture
    def objects(self) -> ObjectStore:
        return MemoryObjects()


class TestMemoryMachines(RaceAtLength, ChoosingContract):
    @pytest.fixture
    def ec2(self) -> Ec2UnderTest:
        machines = MemoryMachines()
        pools = (Pool("us-east-1", "us-east-1a", "g5.xlarge"), Pool("us-east-1", "us-east-1b", "g5.xlarge"))

        def refuse(pool: Pool, code: str) -> None:
            machines.refuse(code, FailureScope.POOL, zone=pool.zone, instance_type=pool.instance_type)

        away = Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
        return Ec2UnderTest(machines, pools, refuse, away, machines.cut_off, machines.limit)


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    def bus(self) -> PublisherUnderTest:
        publisher = MemoryPublisher()

        def heard(count: int) -> list[tuple[str, dict[str, Any]]]:
            return publisher.events[:count]

        return PublisherUnderTest(publisher, heard)


class TestMemorySwitch(SwitchContract):
    @pytest.fixture
    def thrown(self) -> SwitchUnderTest:
        switch = MemorySwitch()
        return SwitchUnderTest(switch, lambda on: setattr(switch, "on", on))


class TestManualClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return ManualClock()
