"""Faults between the SDK and the service, beneath botocore's own retries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError


@dataclass
class Wire:
    """Counts the requests of one operation, and cuts some of them."""

    sent: int = 0  # requests that reached the service
    asked: int = 0  # requests that the SDK wanted to send
    then: list[Callable[[], None]] = field(default_factory=list)  # run once the first request took effect


def lose_replies(client: Any, operation: str, times: int = 10**6) -> Wire:
    """The service does what it is asked, and its answer never arrives."""
    wire = Wire()

    def send(request: Any, **_: Any) -> None:
        wire.asked += 1
        if wire.asked > times:
            return
        client._endpoint.http_session.send(request)
        wire.sent += 1
        while wire.then:
            wire.then.pop()()
        raise ReadTimeoutError(endpoint_url=request.url)

    _register(client, operation, send)
    return wire


def lose_requests(client: Any, operation: str, times: int = 10**6) -> Wire:
    """The service never hears, and the SDK cannot know that."""
    return _fail(client, operation, times, ReadTimeoutError)


def no_connection(client: Any, operation: str, times: int = 10**6) -> Wire:
    """No connection can be opened."""
    return _fail(client, operation, times, ConnectTimeoutError)


def no_endpoint(client: Any) -> None:
    """No connection can be opened for any request, and the SDK does not even try twice."""

    def refuse(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url=client.meta.endpoint_url)

    client.meta.events.register("before-call", refuse)


def count(client: Any, operation: str) -> Wire:
    """Nothing is cut, the requests are counted."""
    wire = Wire()

    def see(**_: Any) -> None:
        wire.asked += 1

    _register(client, operation, see)
    return wire


def _fail(client: Any, operation: str, times: int, kind: type[Exception]) -> Wire:
    wire = Wire()

    def refuse(request: AWSRequest, **_: Any) -> None:
        wire.asked += 1
        if wire.asked <= times:
            make: Any = kind
            raise make(endpoint_url=request.url)

    _register(client, operation, refuse)
    return wire


def _register(client: Any, operation: str, handler: Callable[..., None]) -> None:
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-send.{service}.{operation}", handler)
