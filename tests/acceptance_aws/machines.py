"""Every machine that the stack's tag was ever seen on, from DescribeInstances, and the end of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from spotrelay.aws.failures import FAILURES, failed_read

MANAGED = "tag:spotrelay:managed"
OVER = ("terminated", "shutting-down")


@dataclass(frozen=True)
class Machine:
    """One instance, as EC2 describes it."""

    instance_id: str
    run_id: str
    generation: int
    state: str
    instance_type: str
    zone: str
    launched_at: datetime
    reason: str = ""  # EC2's code for its last change of state, such as Server.SpotInstanceTermination
    over_at: datetime | None = None  # first seen ending

    @property
    def is_over(self) -> bool:
        return self.state in OVER


class Ledger:
    """What was seen, by id. A terminated instance soon loses its tags, so each look adds to the last."""

    def __init__(self, ec2: Any, stack: str, now: Callable[[], datetime]) -> None:
        self._ec2 = ec2
        self._stack = stack
        self._now = now
        self._seen: dict[str, Machine] = {}

    def look(self) -> list[Machine]:
        """Everything seen so far, as it is now, oldest first.

        Raises:
            Unavailable: EC2 does not answer.
        """
        try:
            found = [*self._described({"Filters": tagged(self._stack)}), *self._known()]
        except FAILURES as error:
            raise failed_read(error, f"looking at the machines of {self._stack}") from error
        for instance in found:
            machine = read(instance)
            old = self._seen.get(machine.instance_id)
            if old is not None:
                machine = replace(machine, run_id=old.run_id, generation=old.generation, over_at=old.over_at)
            if machine.is_over and machine.over_at is None:
                machine = replace(machine, over_at=self._now())
            self._seen[machine.instance_id] = machine
        return self.seen

    @property
    def seen(self) -> list[Machine]:
        """As of the last look."""
        return sorted(self._seen.values(), key=lambda m: (m.launched_at, m.instance_id))

    def _known(self) -> list[dict[str, Any]]:
        """Those that we know and that may have lost their tag."""
        alive = [m.instance_id for m in self._seen.values() if m.state != "terminated"]
        return self._described({"Filters": [{"Name": "instance-id", "Values": alive}]}) if alive else []

    def _described(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        pages = self._ec2.get_paginator("describe_instances").paginate(**wanted)
        return [i for page in pages for reservation in page["Reservations"] for i in reservation["Instances"]]


def tagged(stack: str, *states: str) -> list[dict[str, Any]]:
    """Filters for the machines of a stack, in these states if any are named."""
    wanted: list[dict[str, Any]] = [{"Name": MANAGED, "Values": [stack]}]
    return [*wanted, {"Name": "instance-state-name", "Values": list(states)}] if states else wanted


def read(instance: dict[str, Any]) -> Machine:
    """One instance of DescribeInstances."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags") or []}
    generation = tags.get("spotrelay:generation", "")
    return Machine(
        instance["InstanceId"],
        tags.get("spotrelay:run", ""),
        int(generation) if generation.isdigit() else 0,
        instance["State"]["Name"],
        instance["InstanceType"],
        instance["Placement"]["AvailabilityZone"],
        instance["LaunchTime"],
        (instance.get("StateReason") or {}).get("Code", ""),
    )
