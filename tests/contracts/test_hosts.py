"""The registries of hosts pass their suite; and a call through another function says what was said there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from handlers.hosts import serve
from spotrelay.aws.clients import Clients
from spotrelay.aws.host_calls import CalledHosts
from spotrelay.aws.host_store import DynamoHosts
from spotrelay.core.errors import InvalidInput, OutcomeUnknown, OutOfReach, Unavailable
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import Rung
from spotrelay.core.ports import HostStore
from spotrelay.testing import MemoryMachines
from spotrelay.testing.contracts.host_store import LAB1, LAB2, HostStoreContract
from spotrelay.testing.contracts.samples import NOON
from spotrelay.testing.hosts import MemoryHosts


class TestMemoryHosts(HostStoreContract):
    @pytest.fixture
    def hosts(self) -> HostStore:
        return MemoryHosts()


class TestDynamoHosts(HostStoreContract):
    @pytest.fixture
    def hosts(self, clients: Clients, table: str) -> HostStore:
        return DynamoHosts(clients.client("dynamodb"), table)


class Silent:
    """A log that nobody reads."""

    def warning(self, message: str, extra: Any) -> None: ...


class Function:
    """Lambda's API with one function behind it: what goes in and out is JSON. It may fail as Lambda does."""

    def __init__(self, machines: Any) -> None:
        self._machines = machines
        self.calls: list[str] = []
        self.fails: Exception | str = ""

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        event = json.loads(Payload)
        self.calls.append(event["call"])
        if isinstance(self.fails, Exception):
            raise self.fails
        answer = serve(event, self._machines, Silent())  # type: ignore[arg-type]
        reply: dict[str, Any] = {"Payload": io.BytesIO(json.dumps(answer).encode())}
        return reply | ({"FunctionError": self.fails} if self.fails else {})


class Lab(MemoryMachines):
    """Hosts in memory, whose silence is told from every other."""

    def _need(self, regions: set[str]) -> None:
        if regions:
            raise OutOfReach(f"{', '.join(sorted(regions))}: no answer")

    def tend(self) -> int:
        return 3

    def check(self, name: str) -> dict[str, Any]:
        return {"python": "3.12.1", "name": name}


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def function(lab: Lab) -> Function:
    return Function(lab)


@pytest.fixture
def called(function: Function) -> CalledHosts:
    return CalledHosts(function, "hosts", MemoryHosts(LAB1, LAB2))


REQUEST_OF = Rung((LAB1.pool,), "test")


def request(called: CalledHosts) -> dict[str, Any]:
    return {**called.prepare("r1", 1, 1, REQUEST_OF), "ClientToken": "r1.1.1"}


def test_each_call_comes_back_as_it_was_answered(called: CalledHosts, lab: Lab) -> None:
    answer = called.launch(request(called), NOON, first=True)

    machine = lab.machines[0]
    assert answer.instance_id == machine.instance_id
    assert called.find("r1", 1) == called.find("r1", 1, LAB1.region) == machine
    assert called.find("r1", 2) is None
    assert called.states((machine.instance_id,), {}) == {machine.instance_id: InstanceState.PENDING}
    assert list(called.managed()) == [machine]
    assert (called.tend(), called.check("lab1")["name"]) == (3, "lab1")
    called.terminate(machine.instance_id)
    assert lab.terminations == [machine.instance_id]
    assert called.prices((LAB1.pool, LAB2.pool)) == {LAB1.pool: 0.0, LAB2.pool: 0.35}


def test_refusals_keep_their_scope_code_and_time(called: CalledHosts, lab: Lab) -> None:
    lab.refuse("HostBusy")

    (refusal,) = called.launch(request(called), NOON).refusals

    assert (refusal.pool, refusal.code, refusal.at) == (LAB1.pool, "HostBusy", NOON)


def test_an_error_is_of_the_same_class_on_this_side(called: CalledHosts, lab: Lab) -> None:
    made = str(called.launch(request(called), NOON).instance_id)
    lab.cut_off(LAB1.region)

    with pytest.raises(OutOfReach, match="ssh:lab1"):
        called.states((made,), {made: LAB1.region})
    seen = []
    with pytest.raises(OutOfReach):
        seen.extend(called.managed())
    assert seen == []


@pytest.mark.parametrize("how", [ReadTimeoutError(endpoint_url="x"), "Unhandled"])
def test_a_launch_without_a_clear_answer_is_unknown_and_anything_else_unavailable(
    called: CalledHosts, function: Function, how: Exception | str
) -> None:
    function.fails = how

    with pytest.raises(OutcomeUnknown):
        called.launch(request(called), NOON)
    with pytest.raises(Unavailable):
        called.states(("h-0abcdef0123456789",), {})


def test_a_function_that_may_not_be_called_is_no_host_out_of_reach(called: CalledHosts, function: Function) -> None:
    function.fails = ClientError({"Error": {"Code": "AccessDeniedException"}}, "Invoke")

    with pytest.raises(Unavailable) as told:
        called.states(("h-0abcdef0123456789",), {})

    assert not isinstance(told.value, OutOfReach)


def test_where_no_host_is_registered_nobody_is_called(function: Function) -> None:
    nobody = CalledHosts(function, "hosts", MemoryHosts())

    assert list(nobody.managed()) == [] and nobody.tend() == 0
    assert nobody.find("r1", 1) is None
    assert nobody.states(("h-0abcdef0123456789",)) == {"h-0abcdef0123456789": InstanceState.GONE}
    nobody.terminate("h-0abcdef0123456789")
    assert function.calls == []


def test_what_is_no_call_is_refused_and_not_tried(lab: Lab) -> None:
    for event in ({"call": "rm -rf"}, {}, "launch", None):
        told = serve(event, lab, Silent())  # type: ignore[arg-type]

        assert told["error"][0] == InvalidInput.__name__


def test_a_host_of_a_newer_version_is_refused_by_name(clients: Clients, table: str) -> None:
    from spotrelay.core.errors import UnknownFormat

    hosts = DynamoHosts(clients.client("dynamodb"), table)
    hosts.add(replace(LAB1))
    clients.client("dynamodb").update_item(
        TableName=table, Key={"pk": {"S": "HOSTS"}, "sk": {"S": "lab1"}},
        UpdateExpression="SET #s = :n", ExpressionAttributeNames={"#s": "schema"},
        ExpressionAttributeValues={":n": {"N": "99"}},
    )  # fmt: skip

    with pytest.raises(UnknownFormat, match="host lab1"):
        hosts.hosts()
