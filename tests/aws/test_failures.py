"""What a failed call tells, by code and class only."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions as boto

from spotrelay.aws.failures import failed_read, failed_write
from spotrelay.core.errors import Contention, InvalidInput, Missing, OutcomeUnknown, SpotrelayError, Unavailable

URL = "http://127.0.0.1:1"


def answer(code: str, status: int = 400, message: str = "") -> boto.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, "Anything")


@pytest.mark.parametrize(
    ("error", "read", "write"),
    [
        (answer("ThrottlingException"), Contention, Contention),
        (answer("ProvisionedThroughputExceededException"), Contention, Contention),
        (answer("TransactionConflictException"), Contention, Contention),
        (answer("SlowDown", 503), Contention, Contention),
        (answer("ConditionalRequestConflict", 409), Contention, Contention),
        (answer("TransactionInProgressException"), Unavailable, OutcomeUnknown),
        (answer("InternalServerError", 500), Unavailable, OutcomeUnknown),
        (answer("SomethingNew", 502), Unavailable, OutcomeUnknown),
        (answer("InternalError", 200), Unavailable, OutcomeUnknown),
        (answer("AccessDeniedException"), Unavailable, Unavailable),
        (answer("ExpiredTokenException"), Unavailable, Unavailable),
        (answer("403", 403), Unavailable, Unavailable),
        (answer("ResourceNotFoundException"), Missing, Missing),
        (answer("ValidationException"), InvalidInput, InvalidInput),
        (answer("SomethingNew", 400), InvalidInput, InvalidInput),
        (boto.ReadTimeoutError(endpoint_url=URL), Unavailable, OutcomeUnknown),
        (boto.ConnectionClosedError(endpoint_url=URL), Unavailable, OutcomeUnknown),
        (boto.EndpointConnectionError(endpoint_url=URL), Unavailable, OutcomeUnknown),
        (boto.ConnectTimeoutError(endpoint_url=URL), Unavailable, OutcomeUnknown),
        (boto.SSLError(endpoint_url=URL, error=OSError("x")), Unavailable, OutcomeUnknown),
        (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), Unavailable, OutcomeUnknown),
        (boto.NoCredentialsError(), Unavailable, Unavailable),
        (boto.CredentialRetrievalError(provider="x", error_msg="y"), Unavailable, Unavailable),
        (boto.UnauthorizedSSOTokenError(), Unavailable, Unavailable),
        (boto.TokenRetrievalError(provider="sso", error_msg="x"), Unavailable, Unavailable),
        (boto.ParamValidationError(report="x"), InvalidInput, InvalidInput),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_a_failure_becomes_the_error_that_says_what_to_do(
    error: Exception, read: type[SpotrelayError], write: type[SpotrelayError]
) -> None:
    assert type(failed_read(error, "trying", "it is not there")) is read
    assert type(failed_write(error, "trying", "it is not there")) is write


def test_the_text_of_a_message_decides_nothing() -> None:
    misleading = answer("InternalServerError", 500, "Throttling: AccessDenied, ResourceNotFoundException")

    assert type(failed_read(misleading, "trying")) is Unavailable


def test_an_error_names_what_was_tried_and_the_remedy() -> None:
    told = str(failed_read(answer("ExpiredTokenException"), "reading run r1"))

    assert told.startswith("reading run r1: ")
    assert "spotrelay doctor" in told
