"""The function that reaches hosts of one's own: `handlers.hosts.handler`. It alone has their keys; others call it.

In an asset of its own, with an SSH library that no other function carries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from handlers.settings import AGENT_BUCKET, AGENT_KEY, AGENT_SHA256, HOST_ROLE, Settings, read_settings
from spotrelay.aws.clients import Clients
from spotrelay.aws.clock import SystemClock
from spotrelay.aws.host_calls import served, written
from spotrelay.aws.host_store import DynamoHosts
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.clockwork import Timings
from spotrelay.core.codec import to_json
from spotrelay.core.errors import InvalidInput, SpotrelayError
from spotrelay.core.ports import Machine
from spotrelay.hosts.keyring import Keyring
from spotrelay.hosts.machines import Setting, SshMachines
from spotrelay.hosts.rights import Ground, StsIssuer


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Answer one call."""
    return serve(event, machines(), logger())


def serve(event: Any, hosts: SshMachines, log: Logger) -> dict[str, Any]:
    """The answer to a call, or its error by name."""
    if not isinstance(event, Mapping) or event.get("call") not in CALLS:
        return {"error": written(InvalidInput(f"no such call: {str(event)[:200]}"))}
    told = served(lambda: CALLS[str(event["call"])](hosts, event))
    if "error" in told:
        log.warning("call refused", extra={"call": event["call"], "cause": told["error"][1]})
    return told


def _managed(hosts: SshMachines, event: Mapping[str, Any]) -> dict[str, Any]:
    """All machines that were seen, and the error of the hosts that did not answer."""
    seen: list[Machine] = []
    try:
        seen.extend(hosts.managed())
    except SpotrelayError as error:
        return {"machines": to_json(seen), "error": written(error)}
    return {"machines": to_json(seen), "error": None}


CALLS: dict[str, Callable[[SshMachines, Mapping[str, Any]], Any]] = {
    "launch": lambda h, e: h.launch(e["request"], datetime.fromisoformat(e["now"]), first=bool(e["first"])),
    "find": lambda h, e: h.find(e["run_id"], e["launch"], e["region"]),
    "states": lambda h, e: h.states(tuple(e["instance_ids"]), e["where"]),
    "managed": _managed,
    "terminate": lambda h, e: h.terminate(e["instance_id"]),
    "tend": lambda h, e: h.tend(),
    "check": lambda h, e: h.check(e["name"]),
    "examine": lambda h, e: h.examine(e["name"]),
}


@cache
def logger() -> Logger:
    """The log of this process."""
    return Logger(service=read_settings(os.environ).stack)


@cache
def machines() -> SshMachines:
    """The hosts of this stack, built once for each cold start."""
    return wire(read_settings(os.environ), os.environ)


def wire(settings: Settings, environment: Mapping[str, str]) -> SshMachines:
    """Hosts, as this environment describes their stack.

    Raises:
        InvalidInput: the function was deployed without something; the text says what.
    """
    missing = [name for name in (HOST_ROLE, AGENT_BUCKET, AGENT_KEY, AGENT_SHA256) if not environment.get(name)]
    if missing:
        raise InvalidInput(f"not set in the environment: {', '.join(missing)}. Deploy the stack again")
    clients = Clients(settings.home_region)
    dynamodb = clients.client("dynamodb")
    ground = Ground(environment[HOST_ROLE], settings.home_region, settings.bucket, settings.table, settings.bus)
    setting = Setting(
        settings.stack, environment[AGENT_SHA256], told_to_machines(settings), Timings().scaled(settings.time_scale)
    )
    return SshMachines(
        DynamoHosts(dynamodb, settings.table),
        DynamoRunStore(dynamodb, settings.table),
        StsIssuer(clients.client("sts"), ground),
        Keyring(clients.client).key_of,
        lambda: S3ObjectStore(clients.client("s3"), environment[AGENT_BUCKET]).get(environment[AGENT_KEY]),
        setting,
        SystemClock(),
    )


def told_to_machines(settings: Settings) -> dict[str, str]:
    """Where a machine finds its run, under the names that the agent reads."""
    return {
        "SPOTRELAY_TABLE": settings.table,
        "SPOTRELAY_BUCKET": settings.bucket,
        "SPOTRELAY_BUS": settings.bus,
        "SPOTRELAY_HOME_REGION": settings.home_region,
    }
