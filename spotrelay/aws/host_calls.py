"""Hosts of one's own through the function that has their keys: each call is one invocation, there and back as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from datetime import datetime
from typing import Any

from spotrelay.aws.failures import FAILURES, Kind, code_of, failed_read, kind_of
from spotrelay.core import errors
from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput, OutcomeUnknown, SpotrelayError, Unavailable
from spotrelay.core.hosts import prices_of
from spotrelay.core.notice import InstanceState
from spotrelay.core.orders import prepare
from spotrelay.core.placement import Pool, Rung
from spotrelay.core.ports import HostStore, LaunchAnswer, Machine


class CalledHosts:
    """A `Machines` that has another function do the work. Where no host is registered, it is never called.

    Args:
        client: of Lambda, sending each request once: a launch is repeated by who decides it, and by nobody beneath.
        function: name of the function.
        hosts: the registry.
    """

    def __init__(self, client: Any, function: str, hosts: HostStore) -> None:
        self._client = client
        self._function = function
        self._hosts = hosts

    def prepare(self, run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
        """The exact request, ready to be stored and sent."""
        return prepare(run_id, generation, launch, rung)

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        """Send a prepared request."""
        asked = {"request": dict(request), "now": now.isoformat(), "first": first}
        return from_json(LaunchAnswer, self._call("launch", asked, lost=OutcomeUnknown), "a host's answer to a launch")

    def find(self, run_id: str, launch: int, region: str = "") -> Machine | None:
        """The machine that this launch made, if a host shows one."""
        if not self._any():
            return None
        found = self._call("find", {"run_id": run_id, "launch": launch, "region": region})
        return from_json(Machine, found, "a host's machine") if found else None

    def find_all(self, run_id: str, launch: int) -> tuple[Machine, ...]:
        """The machine that this launch made, if a host shows one: gangs are EC2's alone."""
        found = self.find(run_id, launch)
        return (found,) if found else ()

    def states(self, instance_ids: tuple[str, ...], where: Mapping[str, str] | None = None) -> dict[str, InstanceState]:
        """The state of each; GONE for one that no registered host knows."""
        if not instance_ids or not self._any():
            return dict.fromkeys(instance_ids, InstanceState.GONE)
        told = self._call("states", {"instance_ids": list(instance_ids), "where": dict(where or {})})
        return {instance_id: InstanceState(state) for instance_id, state in told.items()}

    def managed(self, whole: Container[str] | None = None) -> Iterator[Machine]:
        """Every machine that lives on a host; hosts that did not answer are told at the end."""
        told = self._call("managed", {}) if self._any() else {"machines": [], "error": None}
        yield from from_json(tuple[Machine, ...], told["machines"], "the machines on hosts")
        if told["error"]:
            raise read_error(told["error"])

    def terminate(self, instance_id: str) -> None:
        """End a machine. Harmless when it is already gone."""
        if self._any():
            self._call("terminate", {"instance_id": instance_id})

    def prices(self, pools: tuple[Pool, ...]) -> dict[Pool, float]:
        """Dollars an hour, as the hosts were registered."""
        return prices_of(self._hosts.hosts(), pools)

    def tend(self) -> int:
        """Have the rights renewed of machines whose attempts go on."""
        return int(self._call("tend", {})) if self._any() else 0

    def check(self, name: str) -> dict[str, Any]:
        """What a host says about itself."""
        return dict(self._call("check", {"name": name}))

    def examine(self, name: str) -> dict[str, Any]:
        """What a host says about itself, or `trouble` (a code) and `why`."""
        return dict(self._call("examine", {"name": name}))

    def _any(self) -> bool:
        return bool(self._hosts.hosts())

    def _call(self, call: str, arguments: Mapping[str, Any], lost: type[SpotrelayError] = Unavailable) -> Any:
        """What the function answered, or the error that it answered with.

        Raises:
            Unavailable: it was not called, or (where `lost` says so) it may have been and no answer came.
        """
        doing = f"calling {self._function} ({call})"
        payload = json.dumps({"call": call, **arguments}).encode()
        try:
            reply = self._client.invoke(FunctionName=self._function, Payload=payload)
            said = reply["Payload"].read()
        except FAILURES as error:
            if kind_of(error) is Kind.CUT:
                raise lost(f"{doing}: no clear answer ({code_of(error)}); try again") from error
            raise failed_read(error, doing) from error
        if reply.get("FunctionError"):
            raise lost(f"{doing}: it failed; its log says why")
        told = json.loads(said)
        if told.get("error"):
            raise read_error(told["error"])
        return told["answer"]


def served(serve: Callable[[], Any]) -> dict[str, Any]:
    """The other side of a call: its answer, or its error by name."""
    try:
        return {"answer": to_json(serve())}
    except SpotrelayError as error:
        return {"error": written(error)}


def written(error: SpotrelayError) -> list[str]:
    """An error of the core as JSON; one of a class of its own as the core's that it is."""
    name = next(kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return [name, str(error)]


def read_error(told: list[str]) -> SpotrelayError:
    """The error in this JSON."""
    kind = getattr(errors, str(told[0]), None)
    known = isinstance(kind, type) and issubclass(kind, SpotrelayError)
    return kind(told[1]) if known and kind is not None else InvalidInput(f"{told[0]}: {told[1]}")
