"""What the doctor makes of what AWS answers, or does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, UnauthorizedSSOTokenError
from botocore.session import get_session

from spotrelay.aws.clients import Clients
from spotrelay.console import doctor, exits
from spotrelay.console.doctor import Check
from spotrelay.core.quotas import SPOT_QUOTAS

URL = "https://sts.us-east-1.amazonaws.com"
PLACES = json.dumps({"us-east-1": {"launch_template": "lt-0a", "version": "1", "subnets": {"us-east-1a": "subnet-0a"}}})
OUTPUTS = {"Table": "t", "Bucket": "b", "Bus": "s", "Switch": "/w", "Places": PLACES}
STACK = {
    "Stacks": [
        {
            "StackName": "Spotrelay",
            "StackStatus": "CREATE_COMPLETE",
            "CreationTime": "2026-01-05T12:00:00Z",
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()],
        }
    ]
}


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "said"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "X"
    )  # type: ignore[typeddict-item]


class Answers(Clients):
    """Clients whose calls all come to an end by script, before anything is sent."""

    def __init__(self, otherwise: Exception, by_call: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        session = get_session()
        session.set_credentials("test", "test")
        super().__init__("us-east-1", session)
        self._otherwise = otherwise
        self._by_call = by_call

    def _client(self, service: str, region: str, launching: bool) -> Any:
        client = super()._client(service, region, launching)
        client.meta.events.register("before-call", self._end, unique_id="script")
        return client

    def _end(self, model: Any, params: dict[str, Any], **_: Any) -> Any:
        if model.name not in self._by_call:
            raise self._otherwise
        status = type("Answer", (), {"status_code": 200})()
        return status, self._by_call[model.name](params)


def examined(otherwise: Exception, **by_call: Callable[[dict[str, Any]], Any]) -> dict[str, Check]:
    return {check.name: check for check in doctor.checks(Answers(otherwise, by_call), "Spotrelay")}


@pytest.mark.parametrize(
    "silence",
    [EndpointConnectionError(endpoint_url=URL), answer("ServiceUnavailable", 503), answer("Throttling")],
    ids=["no network", "server error", "throttled"],
)
def test_without_an_answer_nothing_is_known_to_be_wrong(silence: Exception) -> None:
    found = examined(silence)

    assert {name: check.state for name, check in found.items()} == {"credentials": "unknown", "stack": "unknown"}
    assert exits.UNAVAILABLE == 6 == doctor.exit_code(list(found.values()))
    for check in found.values():
        assert "AWS did not answer" in check.line and "nothing is known to be wrong" in check.line
        assert "log in" not in check.line and "cdk deploy" not in check.line


@pytest.mark.parametrize(
    "refusal",
    [answer("ExpiredToken"), answer("AccessDenied", 403), NoCredentialsError(), UnauthorizedSSOTokenError()],
    ids=lambda error: type(error).__name__,
)
def test_credentials_that_do_not_serve_are_told_as_such(refusal: Exception) -> None:
    found = examined(refusal)

    assert {check.state for check in found.values()} == {"failed"}
    assert "log in" in found["credentials"].remedy and "log in" in found["stack"].remedy
    assert doctor.exit_code(list(found.values())) == exits.NO_STACK


def test_a_stack_that_is_not_there_has_to_be_deployed() -> None:
    found = examined(answer("ValidationError"), GetCallerIdentity=lambda _: {"Arn": "arn", "Account": "1"})

    assert found["credentials"].state == "ok"
    assert "cdk deploy" in found["stack"].remedy
    assert doctor.exit_code(list(found.values())) == exits.NO_STACK


def test_the_quotas_are_those_that_the_ladder_goes_by_without_those_a_region_lacks() -> None:
    def quota(params: dict[str, Any]) -> Any:
        code = json.loads(params["body"])["QuotaCode"]
        if code == "L-C4BD4855":
            raise answer("NoSuchResourceException")
        return {"Quota": {"Value": 64.0 if code == "L-34B43A08" else 0.0}}

    found = examined(
        EndpointConnectionError(endpoint_url=URL),
        GetCallerIdentity=lambda _: {"Arn": "arn", "Account": "1"},
        DescribeStacks=lambda _: STACK,
        GetServiceQuota=quota,
    )

    told = found["quota"].text.split("; ")
    assert found["quota"].state == "ok"
    assert told == [f"{q.name}: {64 if q.code == 'L-34B43A08' else 0} vCPUs" for q in SPOT_QUOTAS if q.name != "p5"]
    assert doctor.exit_code(list(found.values())) == exits.OK
