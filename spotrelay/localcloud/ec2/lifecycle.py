"""The life of an instance: launched, booted, announced to be taken, reclaimed, lost, terminated.

Every change of state is an `aws.ec2` event, in order. A machine is never alive once EC2 says terminated, but for
one: a zombie, which is what a test asks for.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spotrelay.localcloud.ec2 import metadata
from spotrelay.localcloud.ec2.agenda import Agenda
from spotrelay.localcloud.ec2.imds import Door, MetadataService
from spotrelay.localcloud.ec2.ledger import Ledger
from spotrelay.localcloud.ec2.machine import Body, Machine
from spotrelay.localcloud.ec2.outbox import Event, Outbox, event
from spotrelay.localcloud.ec2.records import SPOT, STATE_CODES, Instance, Notice
from spotrelay.localcloud.ec2.store import Store
from spotrelay.localcloud.ec2.world import World

NOTICE_S = 120.0
"""From the interruption notice to the end. Source: EC2 User Guide, Spot Instance interruption notices."""
BOOT_S = 2.0
"""From the launch to running; a fast machine."""
SHUTDOWN_S = 2.0
"""From shutting-down to terminated."""
GRACE_S = 30.0
"""What an operating system that goes down gives its processes between SIGTERM and SIGKILL."""

_CLOSERS = 8
_log = logging.getLogger(__name__)

TERMINATED_BY_USER = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
SHUT_DOWN_ITSELF = ("Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
SPOT_RECLAIMED = ("Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Spot instance termination")
HARDWARE_LOST = ("Server.InternalError", "Server.InternalError: An internal error has occurred")


class NotPossible(Exception):
    """What a test or a demo asks of an instance cannot happen to it."""


class Lifecycle:
    """Brings instances up and takes them down; thread-safe."""

    def __init__(
        self, world: World, store: Store, home: Path, time_scale: float, clock: Callable[[], float], account: str
    ) -> None:
        self._world = world
        self._store = store
        self._scale = time_scale
        self._clock = clock
        self._account = account
        self._agenda = Agenda()
        self._outbox = Outbox(world.emit)
        self._metadata = MetadataService()
        self._ledger = Ledger(home / "instances.jsonl", clock)

    def admit(self, instance: Instance) -> None:
        """Take a new instance in, pending; it boots later. The store's lock is held by the caller."""
        self._store.instances[instance.instance_id] = instance
        plan = instance.blueprint
        self._ledger.write(
            "launched",
            instance.instance_id,
            pool=plan.pool.facts(),
            fleet_id=instance.fleet_id,
            client_token=instance.client_token,
            tags=instance.tags,
        )
        if instance.spot_request_id:
            detail = {"spot-instance-request-id": instance.spot_request_id, "instance-id": instance.instance_id}
            self._send("EC2 Spot Instance Request Fulfillment", instance, instance.arn(), detail)
        self._enter(instance, "pending")
        self._agenda.after(BOOT_S * self._scale, lambda: self._boot(instance))

    def terminate(self, instance: Instance) -> tuple[str, str]:
        """Begin to end an instance, as a user asks for; the states before and after."""
        with self._store.lock:
            before = instance.state
            self._begin_end(instance, TERMINATED_BY_USER)
            return before, instance.state

    def interrupt(
        self, instance: Instance, notice_s: float | None, duplicate: int, shuffle: bool, rebalance_first: bool
    ) -> float:
        """Announce that EC2 takes a Spot instance, and take it at the announced time, which is returned.

        Args:
            notice_s: real seconds until then; None for two minutes at this cloud's pace.
            duplicate: how often the warning is delivered.
            shuffle: let every warning after the first (a single one too) arrive after the instance's last state.
            rebalance_first: let a rebalance recommendation come before.

        Raises:
            NotPossible: the instance is not Spot, is over, or has been announced already.
        """
        lead = NOTICE_S * self._scale if notice_s is None else notice_s
        with self._store.lock:
            if instance.pool.market != SPOT:
                raise NotPossible(f"{instance.instance_id} is on-demand: EC2 does not interrupt it")
            if instance.is_over or instance.notice is not None:
                raise NotPossible(f"{instance.instance_id} is {instance.state} or about to be interrupted already")
            if rebalance_first:
                self.recommend_rebalance(instance)
            deadline = math.ceil(self._clock() + lead)  # metadata tells whole seconds, and EC2 keeps to them
            instance.notice = Notice("terminate", deadline)
            warning = self._warning(instance)
            at_once = 1 if shuffle and duplicate > 1 else 0 if shuffle else duplicate
            for _ in range(at_once):
                self._outbox.put(warning)
            late = [warning] * (duplicate - at_once)
            self._ledger.write("noticed", instance.instance_id, deadline=deadline)
            self._agenda.after(deadline - self._clock(), lambda: self._reclaim(instance, late))
        return float(deadline)

    def recommend_rebalance(self, instance: Instance) -> None:
        """Say that a Spot instance is at elevated risk; nothing happens to it."""
        with self._store.lock:
            instance.rebalance_at = self._clock()
            self._ledger.write("rebalance-recommended", instance.instance_id)
            detail = {"instance-id": instance.instance_id}
            self._send("EC2 Instance Rebalance Recommendation", instance, instance.arn(), detail)

    def lose(self, instance: Instance) -> None:
        """Kill every process at once, without any notice; EC2 finds out afterwards. A zombie is killed for good."""
        with instance.hands:
            if instance.machine is not None:
                instance.machine.kill()
        self._metadata.close_door(instance.instance_id)
        self._ledger.write("lost", instance.instance_id)
        self._begin_end(instance, HARDWARE_LOST)

    def zombify(self, instance: Instance) -> None:
        """Let EC2 say terminated while the processes are only stopped: a host cut off from the rest of AWS.

        Raises:
            NotPossible: the instance has no running machine.
        """
        with instance.hands:
            if instance.machine is None or instance.is_over:
                raise NotPossible(f"{instance.instance_id} is {instance.state}: it cannot become a zombie")
            instance.machine.stop()
            instance.is_zombie = True
            self._metadata.close_door(instance.instance_id)
            self._ledger.write("zombie", instance.instance_id)
            self._begin_end(instance, SPOT_RECLAIMED if instance.pool.market == SPOT else HARDWARE_LOST)

    def stop_group(self, instance: Instance) -> None:
        """SIGSTOP every process."""
        with instance.hands:
            self._machine(instance).stop()
        self._ledger.write("stopped", instance.instance_id)

    def continue_group(self, instance: Instance) -> None:
        """SIGCONT every process."""
        with instance.hands:
            self._machine(instance).wake()
        self._ledger.write("woken", instance.instance_id)

    def break_metadata(self, instance: Instance, status: int | None) -> None:
        """Let the instance's metadata service answer everything with this HTTP status; None mends it."""
        door = self._metadata.door(instance.instance_id)
        if door is None:
            raise NotPossible(f"{instance.instance_id} is {instance.state}: it has no metadata service")
        door.failure = status

    def close(self) -> None:
        """Kill everything, deliver what is left to be told."""
        self._agenda.stop()
        first = self._kill_all(set())  # so that nobody waits for machines that go down slowly
        self._agenda.close()
        self._kill_all(first)
        self._metadata.close()
        self._outbox.close()
        self._ledger.close()

    def _kill_all(self, but: set[str]) -> set[str]:
        """Kill every machine but these; the ids of the instances whose machines are dead now."""
        with self._store.lock:
            machines = {i.instance_id: i.machine for i in self._store.instances.values() if i.machine is not None}
        with ThreadPoolExecutor(_CLOSERS) as closers:
            list(closers.map(Machine.kill, [machines[name] for name in machines.keys() - but]))
        return set(machines)

    def _machine(self, instance: Instance) -> Machine:
        if instance.machine is None:
            raise NotPossible(f"{instance.instance_id} is {instance.state}: it has no processes")
        return instance.machine

    def _boot(self, instance: Instance) -> None:
        with instance.hands:
            with self._store.lock:
                if instance.state != "pending":
                    return
                self._enter(instance, "running")
            try:
                self._start(instance)
            except Exception:  # noqa: BLE001  # told in the log; for EC2 this is broken hardware
                _log.exception("%s cannot boot", instance.instance_id)
                self._begin_end(instance, HARDWARE_LOST)

    def _start(self, instance: Instance) -> None:
        plan = instance.blueprint
        role = plan.role.rsplit("/", 1)[-1]

        def read(path: str) -> str | bytes | None:
            held = self._world.credentials
            return metadata.find(instance, role, lambda: held(plan.profile, instance.instance_id), path)

        door = Door(read, plan.metadata)
        instance.metadata_endpoint = self._metadata.open(instance.instance_id, door)
        environment = {
            **self._world.instance_environment(instance.instance_id),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": instance.metadata_endpoint,
        }
        body = Body(instance.instance_id, instance.home, plan.user_data, environment)
        instance.machine = Machine(body, lambda word: self._switched_off(instance), lambda: self._fell_over(instance))
        pids = {"supervisor": instance.machine.supervisor, "pgid": instance.machine.first_pid}
        self._ledger.write("booted", instance.instance_id, **pids)

    def _switched_off(self, instance: Instance) -> None:
        """The instance has called `shutdown`."""
        self._ledger.write("switched-off", instance.instance_id)
        stays = instance.blueprint.shutdown_behavior == "stop" and instance.pool.market != SPOT
        with self._store.lock:
            if stays and not instance.is_over:
                instance.state_reason = SHUT_DOWN_ITSELF
                self._enter(instance, "stopping")
                self._agenda.after(0.0, lambda: self._rest(instance))
            else:
                self._begin_end(instance, SHUT_DOWN_ITSELF, gently=True)
        if instance.is_zombie:
            self._agenda.after(0.0, lambda: self._machine(instance).end_gently(GRACE_S * self._scale))

    def _rest(self, instance: Instance) -> None:
        with instance.hands:
            self._machine(instance).end_gently(GRACE_S * self._scale)
        self._metadata.close_door(instance.instance_id)
        with self._store.lock:
            if instance.state == "stopping":
                self._enter(instance, "stopped")

    def _fell_over(self, instance: Instance) -> None:
        """The supervisor was killed from within: the same as lost hardware."""
        self._agenda.after(0.0, lambda: self.lose(instance))

    def _reclaim(self, instance: Instance, late: list[Event]) -> None:
        with instance.hands:
            if not instance.is_over:
                if instance.machine is not None:
                    instance.machine.kill()
                self._ledger.write("reclaimed", instance.instance_id)
            self._begin_end(instance, SPOT_RECLAIMED, late)

    def _begin_end(
        self, instance: Instance, reason: tuple[str, str], late: list[Event] | None = None, gently: bool = False
    ) -> None:
        """Enter shutting-down, and see to the rest later. Nothing new for an instance that is over.

        Args:
            late: events to deliver after the last state.
            gently: let the processes go down by themselves first.
        """
        with self._store.lock:
            if instance.is_over:
                for warning in late or []:
                    self._outbox.put(warning)
                return
            instance.state_reason = reason
            instance.ended_at = self._clock()
            self._enter(instance, "shutting-down")
        self._agenda.after(0.0, lambda: self._go_down(instance, late or [], gently))

    def _go_down(self, instance: Instance, late: list[Event], gently: bool) -> None:
        if not instance.is_zombie:
            with instance.hands:
                machine = instance.machine
                if machine is not None and gently:
                    machine.end_gently(GRACE_S * self._scale)
                elif machine is not None:
                    machine.kill()
            self._metadata.close_door(instance.instance_id)
        self._agenda.after(SHUTDOWN_S * self._scale, lambda: self._finish(instance, late))

    def _finish(self, instance: Instance, late: list[Event]) -> None:
        if not instance.is_zombie:
            for name in ("root", "tmp"):  # a machine's disk ends with it; its console stays
                shutil.rmtree(instance.home / name, ignore_errors=True)
        with self._store.lock:
            instance.terminated_at = self._clock()
            self._enter(instance, "terminated")
            for warning in late:
                self._outbox.put(warning)

    def _enter(self, instance: Instance, state: str) -> None:
        instance.state = state
        self._ledger.write(state, instance.instance_id)
        detail = {"instance-id": instance.instance_id, "state": state}
        self._send("EC2 Instance State-change Notification", instance, instance.arn(), detail)

    def _warning(self, instance: Instance) -> Event:
        detail = {"instance-id": instance.instance_id, "instance-action": "terminate"}
        return self._event("EC2 Spot Instance Interruption Warning", instance, self._short_arn(instance), detail)

    def _short_arn(self, instance: Instance) -> str:
        """The ARN with a zone and without an account that interruption warnings carry."""
        return f"arn:aws:ec2:{instance.pool.zone}:instance/{instance.instance_id}"

    def _event(self, detail_type: str, instance: Instance, arn: str, detail: dict[str, str]) -> Event:
        return event(detail_type, self._account, instance.pool.region, arn, detail, self._clock())

    def _send(self, detail_type: str, instance: Instance, arn: str, detail: dict[str, str]) -> None:
        self._outbox.put(self._event(detail_type, instance, arn, detail))


def described(instance: Instance, alive: list[int]) -> dict[str, Any]:
    """An instance in JSON: EC2's own members in their shape (capitals), and what only this emulation knows."""
    machine = instance.machine
    return {
        "InstanceId": instance.instance_id,
        "InstanceType": instance.pool.instance_type,
        "InstanceLifecycle": instance.pool.market,
        "Placement": {"AvailabilityZone": instance.pool.zone},
        "State": {"Code": STATE_CODES[instance.state], "Name": instance.state},
        "StateReason": instance.state_reason[0] if instance.state_reason else None,
        "Tags": [{"Key": key, "Value": value} for key, value in instance.tags.items()],
        "ClientToken": instance.client_token,
        "FleetId": instance.fleet_id or None,
        "SpotInstanceRequestId": instance.spot_request_id or None,
        "region": instance.pool.region,
        "launched_at": instance.launched_at,
        "ended_at": instance.ended_at,
        "terminated_at": instance.terminated_at,
        "notice": {"action": instance.notice.action, "deadline": instance.notice.deadline} if instance.notice else None,
        "zombie": instance.is_zombie,
        "pgid": machine.first_pid or None if machine else None,
        "supervisor": machine.supervisor if machine else None,
        "alive_processes": alive,
        "metadata_endpoint": instance.metadata_endpoint or None,
        "home": str(instance.home),
        "console": str(machine.console) if machine else None,
    }
