"""Builds what the commands use, once per call, from the stack's own outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from spotrelay.console.exits import NotReady
from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import InvalidInput, Missing
from spotrelay.core.placement import Pool
from spotrelay.core.ports import Clock, HostStore, ObjectStore, Publisher, RunStore
from spotrelay.core.requirements import InstanceKind

if TYPE_CHECKING:
    from spotrelay.aws.clients import Clients
    from spotrelay.aws.stack import Stack

DEFAULT_STACK = "Spotrelay"


@dataclass(frozen=True)
class Services:
    """Everything that a command may use."""

    runs: RunStore
    objects: ObjectStore
    publisher: Publisher
    clock: Clock
    zones: tuple[tuple[str, str], ...]  # (region, zone) of each subnet of the stack
    stack: str = DEFAULT_STACK
    hosts: HostStore | None = None  # machines of one's own
    timings: Timings = field(default_factory=Timings)
    kinds_in: Callable[[str], tuple[InstanceKind, ...]] = lambda region: ()  # instance types that a region offers
    prices_of: Callable[[tuple[Pool, ...]], Mapping[Pool, float]] = lambda pools: {}  # dollars an hour, as Spot


@dataclass(frozen=True)
class Where:
    """Which stack a command speaks to."""

    stack: str
    region: str | None  # None: what the AWS configuration says


def connect(where: Where) -> Services:
    """The services of a deployed stack.

    Raises:
        NotReady: no region, no credentials or no such stack; says what to do.
        Unavailable: AWS does not answer.
    """
    return services_of(*find(where))


def find(where: Where) -> tuple[Clients, Stack]:
    """Clients, and the stack that they find.

    Raises:
        NotReady: no region, no credentials or no such stack; says what to do.
        Unavailable: AWS does not answer.
    """
    from spotrelay.aws.stack import find_stack

    clients = clients_of(where)
    try:
        return clients, find_stack(clients.client("cloudformation"), where.stack)
    except (Missing, InvalidInput) as error:
        raise NotReady(str(error)) from error


def clients_of(where: Where) -> Clients:
    """Clients in the region of the option, of the environment or of the AWS configuration.

    Raises:
        NotReady: nobody names a region, or there are no credentials.
    """
    import botocore.session

    from spotrelay.aws.clients import Clients
    from spotrelay.core.errors import Unavailable

    region = (
        where.region or os.environ.get("AWS_REGION") or botocore.session.get_session().get_config_variable("region")
    )
    if not region:
        raise NotReady("no AWS region is known: give --region, set AWS_REGION, or run `aws configure`")
    clients = Clients(str(region))
    try:
        clients.client("sts")
    except Unavailable as error:
        raise NotReady(str(error)) from error
    return clients


def services_of(clients: Clients, stack: Stack) -> Services:
    """The adapters of a stack."""
    from spotrelay.aws.catalogue import instance_kinds
    from spotrelay.aws.clock import SystemClock
    from spotrelay.aws.host_store import DynamoHosts
    from spotrelay.aws.machines import Ec2Machines
    from spotrelay.aws.object_store import S3ObjectStore
    from spotrelay.aws.publisher import BusPublisher
    from spotrelay.aws.run_store import DynamoRunStore

    return Services(
        runs=DynamoRunStore(clients.client("dynamodb"), stack.table),
        objects=S3ObjectStore(clients.client("s3"), stack.bucket),
        publisher=BusPublisher(clients.client("events"), stack.bus),
        clock=SystemClock(),
        zones=stack.places.zones,
        stack=stack.name,
        kinds_in=cache(lambda region: instance_kinds(clients.client("ec2", region))),
        prices_of=Ec2Machines(clients, stack.places, stack.name).prices,
        hosts=DynamoHosts(clients.client("dynamodb"), stack.table),
    )
