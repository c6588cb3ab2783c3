"""The switch, the bus and the queue when AWS does not answer as hoped; and the stack's outputs."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from spotrelay.aws.clients import Clients
from spotrelay.aws.publisher import BusPublisher
from spotrelay.aws.runs_queue import SqsRunsQueue
from spotrelay.aws.stack import find_stack
from spotrelay.aws.switch import SsmSwitch
from spotrelay.core.errors import Contention, Missing, SpotrelayError, Unavailable


@pytest.mark.parametrize(
    "code", ["ParameterNotFound", "AccessDeniedException", "ThrottlingException", "InternalServerError", "Strange"]
)
def test_a_switch_that_cannot_be_read_allows_nothing(offline: Clients, code: str) -> None:
    ssm = offline.client("ssm")
    with Stubber(ssm) as stub:
        stub.add_client_error("get_parameter", code)
        with pytest.raises(Unavailable, match="Nothing is launched meanwhile"):
            SsmSwitch(ssm, "/launches").launches_allowed()


@pytest.mark.parametrize(
    ("value", "allowed"), [("on", True), (" ON\n", True), ("off", False), ("", False), ("yes", False)]
)
def test_only_a_plain_on_allows_a_launch(offline: Clients, value: str, allowed: bool) -> None:
    ssm = offline.client("ssm")
    with Stubber(ssm) as stub:
        stub.add_response("get_parameter", {"Parameter": {"Value": value}}, {"Name": "/launches"})

        assert SsmSwitch(ssm, "/launches").launches_allowed() is allowed


def test_an_answer_of_the_switch_is_believed_for_a_moment_only(offline: Clients) -> None:
    ssm = offline.client("ssm")
    with Stubber(ssm) as stub:
        for value in ("on", "off"):
            stub.add_response("get_parameter", {"Parameter": {"Value": value}})
        patient, eager = SsmSwitch(ssm, "/a", timedelta(hours=1)), SsmSwitch(ssm, "/b", timedelta(0))

        assert [patient.launches_allowed() for _ in range(3)] == [True, True, True]
        assert eager.launches_allowed() is False


@pytest.mark.parametrize(("kind", "source"), [("Run Status Changed", "spotrelay.run"), ("Run Submitted", "spotrelay")])
def test_an_event_says_for_whom_it_is(offline: Clients, kind: str, source: str) -> None:
    events = offline.client("events")
    entry = {"Source": source, "DetailType": kind, "Detail": '{"run_id":"r1"}', "EventBusName": "home"}
    with Stubber(events) as stub:
        stub.add_response("put_events", {"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]}, {"Entries": [entry]})

        BusPublisher(events, "home").publish(kind, {"run_id": "r1"})

        stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "error"), [("ThrottlingException", Contention), ("InternalFailure", Unavailable), ("New", Unavailable)]
)
def test_an_event_that_the_bus_did_not_take_is_told_of(
    offline: Clients, code: str, error: type[SpotrelayError]
) -> None:
    events = offline.client("events")
    with Stubber(events) as stub:
        stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code}]})
        with pytest.raises(error, match=code):
            BusPublisher(events, "home").publish("Run Submitted", {"run_id": "r1"})


def test_due_runs_are_queued_ten_in_a_call(clients: Clients) -> None:
    sqs = clients.client("sqs")
    url = sqs.create_queue(QueueName="runs")["QueueUrl"]

    SqsRunsQueue(sqs, url).send(f"run-{number}" for number in range(25))

    heard = set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        heard |= {json.loads(message["Body"])["run_id"] for message in messages}
    assert heard == {f"run-{number}" for number in range(25)}


def test_runs_that_were_not_queued_are_told_of(offline: Clients) -> None:
    sqs = offline.client("sqs")
    failed = {"Id": "1", "Code": "InternalError", "SenderFault": False}
    with Stubber(sqs) as stub:
        stub.add_response("send_message_batch", {"Successful": [], "Failed": [failed]})
        with pytest.raises(Unavailable, match=r"queueing 2 due runs: 1 were not taken \(InternalError\)"):
            SqsRunsQueue(sqs, "http://127.0.0.1/q").send(["a", "b"])


PLACES = '{"us-east-1": {"launch_template": "lt-1", "version": "2", "subnets": {"us-east-1a": "subnet-1"}}}'
OUTPUTS = {"Table": "t", "Bucket": "b", "Bus": "home", "Switch": "/launches", "Places": PLACES, "SweepFunction": "s"}


def describe(status: str, outputs: dict[str, str]) -> dict[str, Any]:
    stack = {
        "StackName": "Spotrelay",
        "StackStatus": status,
        "CreationTime": 0,
        "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
    }
    return {"Stacks": [stack]}


def test_a_stack_is_known_by_its_outputs(offline: Clients) -> None:
    cloudformation = offline.client("cloudformation")
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", describe("UPDATE_COMPLETE", OUTPUTS), {"StackName": "Spotrelay"})
        stack = find_stack(cloudformation)

    assert (stack.name, stack.region, stack.table, stack.bucket, stack.bus, stack.switch) == (
        "Spotrelay",
        "us-east-1",
        "t",
        "b",
        "home",
        "/launches",
    )
    assert stack.places.zones == (("us-east-1", "us-east-1a"),)
    assert stack.output("SweepFunction") == "s"
    with pytest.raises(Missing, match="RunsQueueUrl"):
        stack.output("RunsQueueUrl")


@pytest.mark.parametrize(
    ("status", "outputs", "problem"),
    [
        ("ROLLBACK_COMPLETE", OUTPUTS, "is ROLLBACK_COMPLETE"),
        ("CREATE_IN_PROGRESS", {}, "is CREATE_IN_PROGRESS"),
        ("CREATE_COMPLETE", {"Other": "x"}, "no output Table, Bucket, Bus, Switch, Places"),
    ],
)
def test_a_stack_that_cannot_be_used_says_why(
    offline: Clients, status: str, outputs: dict[str, str], problem: str
) -> None:
    cloudformation = offline.client("cloudformation")
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", describe(status, outputs))
        with pytest.raises(Missing, match=problem):
            find_stack(cloudformation)


def test_a_stack_that_is_not_there_says_what_to_do(clients: Clients) -> None:
    with pytest.raises(Missing, match="there is no stack Nowhere in us-east-1: deploy it"):
        find_stack(clients.client("cloudformation"), "Nowhere")


def test_a_stack_that_may_not_be_seen_is_not_called_missing(offline: Clients) -> None:
    cloudformation = offline.client("cloudformation")
    with Stubber(cloudformation) as stub:
        stub.add_client_error("describe_stacks", "AccessDenied", http_status_code=403)
        with pytest.raises(Unavailable, match="credentials"):
            find_stack(cloudformation)
