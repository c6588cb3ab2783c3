"""The AWS adapters pass every contract, over HTTP on MiniStack."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest

from spotrelay.aws.clients import Clients
from spotrelay.aws.clock import SystemClock
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.publisher import BusPublisher
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.aws.switch import SsmSwitch
from spotrelay.core.ports import Clock, ObjectStore
from spotrelay.testing.contracts.live_store import LiveStoreContract
from spotrelay.testing.contracts.object_store import ObjectStoreContract
from spotrelay.testing.contracts.publisher import PublisherContract, PublisherUnderTest
from spotrelay.testing.contracts.run_store import RunStoreContract
from spotrelay.testing.contracts.samples import Stores
from spotrelay.testing.contracts.signals import ClockContract, SwitchContract, SwitchUnderTest

HEARD_S = 20  # seconds within which an event has to arrive


class RaceAtLength:
    """Takes the rounds from the folder's fixture instead of the suite's own."""

    @pytest.fixture
    def rounds(self, rounds: int) -> int:
        return rounds


class TestDynamoRunStore(RaceAtLength, RunStoreContract):
    @pytest.fixture
    def stores(self, clients: Clients, table: str) -> Stores:
        return dynamo(clients, table)


class TestDynamoLiveStore(RaceAtLength, LiveStoreContract):
    @pytest.fixture
    def stores(self, clients: Clients, table: str) -> Stores:
        return dynamo(clients, table)


class TestS3ObjectStore(RaceAtLength, ObjectStoreContract):
    @pytest.fixture
    def objects(self, clients: Clients, bucket: str) -> ObjectStore:
        return S3ObjectStore(clients.client("s3"), bucket)


class TestBusPublisher(PublisherContract):
    @pytest.fixture
    def bus(self, clients: Clients) -> PublisherUnderTest:
        events, sqs = clients.client("events"), clients.client("sqs")
        queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.create_event_bus(Name="home")
        pattern = json.dumps({"source": [{"prefix": "spotrelay"}]})
        events.put_rule(Name="ours", EventBusName="home", EventPattern=pattern, State="ENABLED")
        events.put_targets(Rule="ours", EventBusName="home", Targets=[{"Id": "queue", "Arn": arn}])

        def heard(count: int) -> list[tuple[str, dict[str, Any]]]:
            found: list[tuple[str, dict[str, Any]]] = []
            until = time.monotonic() + HEARD_S
            while len(found) < count and time.monotonic() < until:
                answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for message in answer.get("Messages", []):
                    event = json.loads(message["Body"])
                    found.append((event["detail-type"], event["detail"]))
                    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            return found

        return PublisherUnderTest(BusPublisher(events, "home"), heard)


class TestSsmSwitch(SwitchContract):
    @pytest.fixture
    def thrown(self, clients: Clients) -> SwitchUnderTest:
        switch = SsmSwitch(clients.client("ssm"), "/spotrelay/launches", keep=timedelta(0))
        return SwitchUnderTest(switch, switch.turn)


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()


def dynamo(clients: Clients, table: str) -> Stores:
    client = clients.client("dynamodb")
    return Stores(DynamoRunStore(client, table), DynamoLiveStore(client, table))
