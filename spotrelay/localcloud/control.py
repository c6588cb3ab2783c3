"""What a demo or a test may do to the cloud: reclaim and break machines, set triggers, pace schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from spotrelay.localcloud import emulator, processes
from spotrelay.localcloud.schedules import Schedules
from spotrelay.localcloud.triggers import Triggers
from spotrelay.localcloud.world import EmulatedWorld

EC2_METHODS = (
    "instances",
    "interrupt",
    "kill",
    "recommend_rebalance",
    "refuse",
    "allow",
    "zombify",
    "wake",
    "stop_group",
    "continue_group",
    "break_metadata",
    "set_quota",
    "limit_requests",
    "console",
)
"""Methods of the emulated EC2 that may be called from outside, by name, with keyword arguments."""


class UnknownControl(Exception):
    """There is no such control method."""


class NoMachine(Exception):
    """The instance is not running, or is none of this cloud's."""


class Ec2Control(Protocol):
    """What this module itself needs of the emulated EC2."""

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that was ever launched."""

    def kill(self, instance_id: str) -> None:
        """SIGKILL an instance's processes, without notice."""

    def stop_group(self, instance_id: str) -> None:
        """SIGSTOP them."""


class MachineRoom:
    """Instances as processes, for the triggers."""

    def __init__(self, ec2: Ec2Control, world: EmulatedWorld) -> None:
        self._ec2 = ec2
        self._world = world
        self._supervisors: dict[str, int] = {}
        self._arns: dict[str, str] = {}

    def kill_group(self, instance_id: str) -> None:
        """SIGKILL every process of an instance, without notice."""
        self._ec2.kill(instance_id)

    def stop_group(self, instance_id: str) -> None:
        """SIGSTOP every process of an instance."""
        self._ec2.stop_group(instance_id)

    def condition(self, instance_id: str) -> str:
        """How its processes are: running, stopped or gone."""
        states = set(processes.states_below(self._supervisor(instance_id)).values())
        if not states:
            return "gone"
        return "stopped" if states == {"T"} else "running"

    def instance_of(self, access_key: str) -> str | None:
        """The instance to which an access key was given."""
        return self._world.instance_of(access_key)

    def arn_of(self, access_key: str) -> str | None:
        """ARN of the instance to which an access key was given."""
        instance_id = self.instance_of(access_key)
        if instance_id is None:
            return None
        if instance_id not in self._arns:
            found = next(i for i in self._ec2.instances() if i["InstanceId"] == instance_id)
            region = found["Placement"]["AvailabilityZone"][:-1]
            self._arns[instance_id] = f"arn:aws:ec2:{region}:{emulator.ACCOUNT}:instance/{instance_id}"
        return self._arns[instance_id]

    def _supervisor(self, instance_id: str) -> int:
        """The process below which all processes of an instance are."""
        if instance_id not in self._supervisors:
            supervisor = next((i["supervisor"] for i in self._ec2.instances() if i["InstanceId"] == instance_id), None)
            if supervisor is None:
                raise NoMachine(f"instance {instance_id} has no processes")
            self._supervisors[instance_id] = int(supervisor)
        return self._supervisors[instance_id]


class Control:
    """Dispatches control calls by name."""

    def __init__(self, ec2: Ec2Control, world: EmulatedWorld, triggers: Triggers, schedules: Schedules) -> None:
        self._ec2 = ec2
        self._triggers = triggers
        self._methods: dict[str, Callable[..., Any]] = {
            "when": self._when,
            "trigger": lambda number: triggers.get(number).described(),
            "await_trigger": self._await_trigger,
            "cancel_trigger": triggers.cancel,
            "pace_schedule": schedules.run,
            "schedules": schedules.described,
            "expire_credentials": world.expire_credentials,
        }

    def __call__(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a control method.

        Raises:
            UnknownControl: there is none of that name.
        """
        if name in EC2_METHODS:
            return getattr(self._ec2, name)(**arguments)
        if name not in self._methods:
            raise UnknownControl(f"there is no control method {name}")
        return self._methods[name](**arguments)

    def _when(self, match: dict[str, Any], do: dict[str, Any]) -> int:
        return self._triggers.add(match, do).number

    def _await_trigger(self, number: int, timeout_s: float) -> dict[str, Any]:
        trigger = self._triggers.get(number)
        trigger.fired.wait(timeout_s)
        return trigger.described()
