"""Where the ports are built: once for each cold start, from the environment, at the first event."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.control import ControlPlane
from handlers.settings import METRICS_NAMESPACE, Settings, read_settings
from handlers.telemetry import PowertoolsTelemetry
from spotrelay.aws.budget_cells import DynamoCells
from spotrelay.aws.clients import Clients, nearby
from spotrelay.aws.clock import SystemClock
from spotrelay.aws.experience_store import DynamoExperience
from spotrelay.aws.host_calls import CalledHosts
from spotrelay.aws.host_store import DynamoHosts
from spotrelay.aws.launch_line import DynamoLine
from spotrelay.aws.machines import Ec2Machines
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.placement_scores import Ec2Scores
from spotrelay.aws.publisher import BusPublisher
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.aws.runs_queue import SqsRunsQueue
from spotrelay.aws.switch import SsmSwitch
from spotrelay.core.budget import BLOCK, Books, Budget
from spotrelay.core.clockwork import Timings
from spotrelay.core.line import Pace
from spotrelay.core.ports import ObjectStore
from spotrelay.core.providers import Providers
from spotrelay.core.scoring import Transfer
from spotrelay.core.site import Site


@dataclass(frozen=True)
class Wires:
    """What a function keeps between its invocations."""

    plane: ControlPlane
    logger: Logger
    metrics: Metrics


class Later:
    """Something that is made when it is first used: most events need no client but DynamoDB's."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


@cache
def wired() -> Wires:
    """The wires of this process.

    Raises:
        InvalidInput: the function was deployed without something; the text says what.
    """
    return wire(os.environ)


def wire(environment: Mapping[str, str]) -> Wires:
    """Ports on AWS, as this environment describes it."""
    settings = read_settings(environment)
    logger = Logger(service=settings.stack)
    metrics = Metrics(namespace=METRICS_NAMESPACE, service=settings.stack)
    return Wires(control_plane(settings, PowertoolsTelemetry(logger, metrics)), logger, metrics)


def control_plane(settings: Settings, telemetry: PowertoolsTelemetry) -> ControlPlane:
    """The control plane on AWS. Only DynamoDB's client is made here, since every event needs it."""
    clients = Clients(settings.home_region)
    dynamodb = clients.client("dynamodb")
    ec2 = Ec2Machines(clients, settings.places, settings.stack)
    hosts = DynamoHosts(dynamodb, settings.table)
    called = CalledHosts(Later(lambda: clients.once("lambda")), settings.hosts_function, hosts)
    return ControlPlane(
        store=DynamoRunStore(dynamodb, settings.table),
        objects=_bucket(lambda: clients.client("s3"), settings.bucket),
        replicas={region: _bucket(partial(_nearby, region), name) for region, name in settings.replicas.items()},
        machines=Providers(ec2, called) if settings.hosts_function else ec2,
        publisher=BusPublisher(Later(lambda: clients.client("events")), settings.bus),
        switch=SsmSwitch(Later(lambda: clients.client("ssm")), settings.switch),
        clock=SystemClock(),
        site=Site(
            settings.places.zones,
            Timings().scaled(settings.time_scale),
            home=settings.home_region,
            replicas=tuple(settings.replicas.items()),
            transfer=Transfer(settings.transfer_price),
            budget=_budget(settings),
        ),
        telemetry=telemetry,
        pause=time.sleep,
        runs_queue=SqsRunsQueue(Later(lambda: clients.client("sqs")), settings.runs_queue)
        if settings.runs_queue
        else None,
        hosts=hosts if settings.hosts_function else None,
        keeper=called if settings.hosts_function else None,
        experience=DynamoExperience(dynamodb, settings.table),
        scores=Ec2Scores(clients, settings.places) if settings.placement_scores else None,
        line=DynamoLine(dynamodb, settings.table, Pace(settings.launch_rate)),
        books=Books(DynamoCells(dynamodb, settings.table)),
    )


def _bucket(client: Callable[[], Any], name: str) -> ObjectStore:
    """A bucket whose client is made when it is first looked into: few events need it."""
    later: Any = Later(cache(lambda: S3ObjectStore(client(), name)))
    return later  # type: ignore[no-any-return]  # it has everything that the store has


def _nearby(region: str) -> Any:
    return nearby(region).client("s3")


def _budget(settings: Settings) -> Budget | None:
    return None if settings.day_dollars is None else Budget(settings.day_dollars, BLOCK * settings.time_scale)


def observed(wires: Wires, body: Callable[[], dict[str, Any]], event: Any, context: LambdaContext) -> dict[str, Any]:
    """Run a function's body with its request on every log line, and its metrics written at the end."""

    def run(event: Any, context: LambdaContext) -> dict[str, Any]:
        return body()

    logged = wires.logger.inject_lambda_context(run, clear_state=True)
    answer: dict[str, Any] = wires.metrics.log_metrics(logged, capture_cold_start_metric=True)(event, context)
    return answer
