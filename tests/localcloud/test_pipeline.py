"""Event → rule → queue → function, with AWS's own runtime client at the end."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spotrelay.localcloud.client import LocalCloud
from spotrelay.localcloud.host import ENVIRONMENTS_PER_FUNCTION
from tests.localcloud.kit import allow, called, eventually, function, log_of, role, table

pytestmark = pytest.mark.loop

RECORDER = """
import json, os
import boto3

def handler(event, context):
    table = boto3.client("dynamodb")
    failed = []
    for record in event["Records"]:
        detail = json.loads(record["body"])["detail"]
        count = record["attributes"]["ApproximateReceiveCount"]
        item = {"pk": {"S": detail["id"]}, "sk": {"S": count}}
        table.put_item(TableName=os.environ["TABLE"], Item=item)
        if detail["bad"]:
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}
"""


def queue(cloud: LocalCloud, name: str, **attributes: str) -> tuple[str, str]:
    """URL and ARN of a new queue."""
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return url, arn


def waiting(cloud: LocalCloud, url: str) -> int:
    attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])[
        "Attributes"
    ]
    return int(attributes["ApproximateNumberOfMessages"])


def seen(cloud: LocalCloud, name: str) -> dict[str, int]:
    """Detail id → how often the function was given it."""
    found: dict[str, int] = {}
    for item in cloud.client("dynamodb").scan(TableName=name)["Items"]:
        found[item["pk"]["S"]] = max(found.get(item["pk"]["S"], 0), int(item["sk"]["S"]))
    return found


def pipeline(cloud: LocalCloud, name: str) -> str:
    """URL of the dead-letter queue of a new pipeline from source `name` to a recording function."""
    dead_url, dead_arn = queue(cloud, f"{name}-dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    _, queue_arn = queue(cloud, name, VisibilityTimeout="4", RedrivePolicy=redrive)
    events = cloud.client("events")
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": queue_arn}])
    own_table = f"arn:aws:dynamodb:us-east-1:000000000000:table/{table(cloud, name)}"
    rights = allow("dynamodb:PutItem", on=own_table)
    function(cloud, name, RECORDER, role(cloud, name, "lambda.amazonaws.com", rights), TABLE=name)
    cloud.client("lambda").create_event_source_mapping(
        FunctionName=name, EventSourceArn=queue_arn, FunctionResponseTypes=["ReportBatchItemFailures"], BatchSize=10
    )
    return dead_url


def publish(cloud: LocalCloud, name: str, *details: dict[str, Any]) -> None:
    entries = [{"Source": name, "DetailType": "t", "Detail": json.dumps(detail)} for detail in details]
    assert cloud.client("events").put_events(Entries=entries)["FailedEntryCount"] == 0


def test_an_event_reaches_the_function_through_rule_and_queue(cloud: LocalCloud, name: str) -> None:
    pipeline(cloud, name)

    publish(cloud, name, {"id": "a", "bad": False})

    eventually(lambda: seen(cloud, name) == {"a": 1}, "the function has recorded the event")


def test_only_the_failed_message_of_a_batch_comes_again_and_ends_in_the_dead_letter_queue(
    cloud: LocalCloud, name: str
) -> None:
    dead = pipeline(cloud, name)

    publish(cloud, name, {"id": "good", "bad": False}, {"id": "bad", "bad": True})

    eventually(lambda: waiting(cloud, dead) == 1, "the failed message is in the dead-letter queue", 40.0)
    assert seen(cloud, name) == {"good": 1, "bad": 2}


def test_an_event_is_forwarded_to_a_bus_in_the_home_region_and_keeps_its_own(cloud: LocalCloud, name: str) -> None:
    bus = cloud.client("events").create_event_bus(Name=name)["EventBusArn"]
    url, home_queue = queue(cloud, name)
    pattern = json.dumps({"source": [name]})
    cloud.client("events").put_rule(Name=name, EventBusName=name, EventPattern=pattern)
    cloud.client("events").put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "q", "Arn": home_queue}])
    far = cloud.client("events", region="us-west-2")
    far.put_rule(Name=name, EventPattern=pattern)
    forwarder = role(cloud, name, "events.amazonaws.com", allow("events:PutEvents", on=bus))
    far.put_targets(Rule=name, Targets=[{"Id": "home", "Arn": bus, "RoleArn": forwarder}])

    far.put_events(Entries=[{"Source": name, "DetailType": "t", "Detail": json.dumps({"id": "a"})}])

    eventually(lambda: waiting(cloud, url) == 1, "the event is in the home region's queue")
    event = json.loads(cloud.client("sqs").receive_message(QueueUrl=url)["Messages"][0]["Body"])
    assert (event["region"], event["detail"]) == ("us-west-2", {"id": "a"})


def test_a_function_may_do_what_its_role_says_and_nothing_else(cloud: LocalCloud, name: str) -> None:
    table(cloud, name)
    code = """
    import boto3, os
    def handler(event, context):
        boto3.client("dynamodb").get_item(TableName=os.environ["TABLE"], Key={"pk": {"S": "a"}, "sk": {"S": "b"}})
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"), TABLE=name)

    answer, error = called(cloud, name, {})

    assert error
    assert "AccessDeniedException" in answer["errorMessage"]


def test_the_function_sees_what_the_managed_runtime_brings_and_nothing_else_of_this_machine(
    cloud: LocalCloud, name: str
) -> None:
    code = """
    import importlib.util
    def handler(event, context):
        return [module for module in event if importlib.util.find_spec(module)]
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"))

    found, _ = called(cloud, name, ["boto3", "botocore", "aws_lambda_powertools", "pydantic", "torch", "ministack"])

    assert found == ["boto3", "botocore"]


def test_an_asset_that_lacks_a_dependency_fails_with_its_name(cloud: LocalCloud, name: str) -> None:
    function(
        cloud, name, "import pydantic\ndef handler(event, context): pass\n", role(cloud, name, "lambda.amazonaws.com")
    )

    answer, error = called(cloud, name, {})

    assert error
    assert "No module named 'pydantic'" in answer["errorMessage"]
    assert "Runtime.ImportModuleError" in log_of(cloud.home, name)


def test_the_function_finds_its_variables_and_lambdas_own(cloud: LocalCloud, name: str) -> None:
    code = """
    import os, sys
    def handler(event, context):
        return {
            "names": sorted(n for n in os.environ),
            "models": os.environ["MODELS"],
            "root": os.environ["LAMBDA_TASK_ROOT"],
            "cwd": os.getcwd(),
            "memory": context.memory_limit_in_mb,
            "left": context.get_remaining_time_in_millis(),
            "arn": context.invoked_function_arn,
        }
    """
    arn = function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"), timeout_s=7, MODELS="/var/task/models")

    told, _ = called(cloud, name, {})

    assert {"AWS_REGION", "AWS_SESSION_TOKEN", "AWS_LAMBDA_FUNCTION_NAME", "AWS_ENDPOINT_URL"} <= set(told["names"])
    assert not {"VIRTUAL_ENV", "HOME", "PYTEST_CURRENT_TEST"} & set(told["names"])
    assert told["models"] == f"{told['root']}/models"
    assert told["cwd"] == told["root"]
    assert 0 < told["left"] <= 7000
    assert told["arn"] == arn


def test_a_warm_environment_is_used_again(cloud: LocalCloud, name: str) -> None:
    code = """
    import os
    calls = []
    def handler(event, context):
        calls.append(event)
        return [os.getpid(), len(calls)]
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"))

    (first, one), _ = called(cloud, name, {})
    (second, two), _ = called(cloud, name, {})

    assert (first, one, two) == (second, 1, 2)


def test_many_calls_at_once_share_a_few_environments_and_none_is_throttled(cloud: LocalCloud, name: str) -> None:
    code = """
    import os, time
    def handler(event, context):
        time.sleep(0.3)
        return os.getpid()
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"), timeout_s=30)

    with ThreadPoolExecutor(10) as callers:
        answers = list(callers.map(lambda number: called(cloud, name, number), range(10)))

    assert {error for _, error in answers} == {None}
    assert 2 <= len({pid for pid, _ in answers}) <= ENVIRONMENTS_PER_FUNCTION


def test_a_function_that_takes_too_long_is_killed_and_the_next_call_starts_fresh(cloud: LocalCloud, name: str) -> None:
    code = """
    import os, time
    def handler(event, context):
        if event["slow"]:
            time.sleep(600)
        return os.getpid()
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"), timeout_s=1)

    before, _ = called(cloud, name, {"slow": False})
    answer, error = called(cloud, name, {"slow": True})
    after, _ = called(cloud, name, {"slow": False})

    assert error
    assert "timed out after 1.00 seconds" in answer["errorMessage"]
    assert before != after


def test_a_function_whose_process_dies_fails_that_call_only(cloud: LocalCloud, name: str) -> None:
    code = """
    import os
    def handler(event, context):
        if event["die"]:
            os._exit(3)
        return "well"
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"))

    answer, error = called(cloud, name, {"die": True})
    well, _ = called(cloud, name, {"die": False})

    assert error
    assert "exit status 3" in answer["errorMessage"]
    assert well == "well"


def test_what_a_function_raises_and_prints_is_kept(cloud: LocalCloud, name: str) -> None:
    code = """
    def handler(event, context):
        print("about to fail")
        raise ValueError("no such run")
    """
    function(cloud, name, code, role(cloud, name, "lambda.amazonaws.com"))

    answer, error = called(cloud, name, {})

    assert error
    assert "no such run" in answer["errorMessage"]
    assert "about to fail" in log_of(cloud.home, name)
