"""Hosts of one's own in the world of histories: out of reach, rebooted, drained, and with rights that end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from handlers.control import ControlPlane
from spotrelay.core.errors import OutcomeUnknown, OutOfReach, Unavailable
from spotrelay.core.hosts import Host, is_host, name_of
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Refusal
from spotrelay.core.ports import LaunchAnswer, Machine
from spotrelay.core.providers import Providers
from spotrelay.core.spec import Limits, OwnMachines
from spotrelay.testing import MemoryMachines
from spotrelay.testing.hosts import MemoryHosts
from tests.handlers.plane import World
from tests.histories.trainer import Trainer
from tests.histories.world import RUN, SPEC, History

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
KEY = "ssh-ed25519 " + "A" * 68
LAB = Host("lab1", "train", "lab1.example.org", "ssm:/spotrelay-hosts/lab1", KEY, slots=2)  # room for two machines
SMALL = replace(LAB, name="lab2", slots=1)


class Boxes(MemoryMachines):
    """Hosts in memory: what the real ones do about slots, drains, lost answers and rights."""

    def __init__(self, world: LabWorld) -> None:
        super().__init__()
        self._world = world
        self.hangs: set[str] = set()  # regions that start machines and do not say so
        self.rights: dict[str, datetime] = {}  # of each machine, when they end

    def launch(self, request: Mapping[str, Any], now: datetime, *, first: bool = False) -> LaunchAnswer:
        region = str(request["Region"])
        if region in self._cut and not first:
            raise OutOfReach(f"{region}: no answer, nothing was sent")
        if region not in self._cut and request["ClientToken"] not in self._tokens:
            refusal = self._full(request, now, first)
            if refusal is not None:
                return LaunchAnswer(None, None, (refusal,))
        answer = super().launch(request, now, first=first)
        if answer.instance_id is not None:
            self.rights.setdefault(answer.instance_id, self._world.clock.now() + HOUR)
            if region in self.hangs:
                raise OutcomeUnknown(f"{region}: the answer broke off")
        return answer

    def tend(self) -> int:
        """As `SshMachines.tend`: by the control plane's own record."""
        for machine in (m for m in self.alive if m.pool.region not in self._cut):
            run = self._world.run(machine.run_id)
            attempt = run.attempt_on(machine.instance_id)
            if attempt is not None and not attempt.over and not run.status.final:
                self.rights[machine.instance_id] = self._world.clock.now() + HOUR
        return 0

    def at_work(self, region: str) -> list[Machine]:
        """What lives on a host."""
        return [m for m in self.alive if m.pool.region == region]

    def is_cut(self, region: str) -> bool:
        return region in self._cut

    def _full(self, request: Mapping[str, Any], now: datetime, first: bool) -> Refusal | None:
        host = self._world.hosts.one(name_of(str(request["Region"])))
        busy = self.at_work(host.region)
        if host.draining and first:
            return Refusal(host.pool, FailureScope.POOL, "HostDraining", "a person wants it empty", now)
        run = self._world.run(str(request["RunId"]))
        strays = [m for m in busy if m.run_id == run.run_id and run.attempt_on(m.instance_id) is None]
        if len(busy) >= host.slots or strays:  # of those that the run knows it has to keep away by itself
            return Refusal(host.pool, FailureScope.POOL, "HostBusy", "all slots are taken", now)
        return None

    def _need(self, regions: set[str]) -> None:
        if regions:
            raise OutOfReach(f"{', '.join(sorted(regions))}: no answer")


class Fleet(Providers):
    """EC2 and the hosts as one, with the hand of fate on both."""

    def __init__(self, ec2: MemoryMachines, boxes: Boxes) -> None:
        super().__init__(ec2, boxes)
        self.ec2, self.boxes = ec2, boxes

    @property
    def machines(self) -> list[Machine]:
        return self.ec2.machines + self.boxes.machines

    @property
    def alive(self) -> list[Machine]:
        return self.ec2.alive + self.boxes.alive

    @property
    def terminations(self) -> list[str]:
        return self.ec2.terminations + self.boxes.terminations

    def set_state(self, instance_id: str, state: InstanceState) -> None:
        at = self.boxes if instance_id.startswith("h-") else self.ec2
        at.set_state(instance_id, state)

    def refuse(self, times: int | None = None, **match: str) -> None:
        self.ec2.refuse(times=times, **match)

    def allow(self) -> None:
        self.ec2.allow()


class LabWorld(World):
    """The world with two hosts in it."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = MemoryHosts(LAB, SMALL)
        self.boxes = Boxes(self)
        self.machines = Fleet(self.machines, self.boxes)  # type: ignore[assignment]  # as far as histories look

    @property
    def plane(self) -> ControlPlane:
        return replace(super().plane, hosts=self.hosts, keeper=self.boxes)


class FromHost:
    """The table as a machine on a host reaches it: with rights that have not ended, and while its line holds."""

    def __init__(self, instance_id: str, history: HostHistory) -> None:
        self._instance_id = instance_id
        self._history = history

    def __getattr__(self, name: str) -> Any:
        if not self._history.may_write(self._instance_id):
            raise Unavailable("no line to AWS, or rights that have ended")
        attempt = self._history.run.attempt_on(self._instance_id)
        if attempt is not None and not attempt.over:
            self._history.heard[self._instance_id] = self._history.world.clock.now()
        return getattr(self._history.world.store, name)


class HostHistory(History):
    """A run that asks hosts of one's own before EC2, or after it."""

    def __init__(self, max_launches: int, own: OwnMachines) -> None:
        super().__init__(max_launches)
        self.lab = LabWorld()
        self.world = self.lab
        self._machines = self.lab.machines
        self.isolated: set[str] = set()  # regions whose machines reach nobody
        self.heard: dict[str, datetime] = {}  # when a machine on a host last reached the table, before its end
        self.world.submit(RUN, replace(SPEC, limits=Limits(max_launches, max_failures=1000), own_machines=own))

    def may_write(self, instance_id: str) -> bool:
        """Whether a machine on a host could write to AWS at this moment."""
        machine = next(m for m in self.lab.boxes.machines if m.instance_id == instance_id)
        return machine.pool.region not in self.isolated and self.world.clock.now() < self.lab.boxes.rights[instance_id]

    def on_hosts(self) -> list[Trainer]:
        """Trainers whose process runs on a host."""
        return [t for t in self.awake() if t.instance_id.startswith("h-")]

    def region_of(self, instance_id: str) -> str:
        return next(m.pool.region for m in self.lab.machines.machines if m.instance_id == instance_id)

    def vanish(self, region: str, isolated: bool) -> None:
        """The control plane does not reach a host; isolated, its machines reach nobody either."""
        self.lab.boxes.cut_off(region)
        if isolated:
            self.isolated.add(region)
        self.forsaken |= {m.instance_id for m in self.lab.boxes.at_work(region)}

    def come_back(self, region: str) -> None:
        self.lab.boxes.cut_off(region, cut=False)
        self.isolated.discard(region)

    def reboot(self, trainer: Trainer) -> None:
        """Its host goes down and up: the machine is gone, and no event tells."""
        self.lost.add(trainer.instance_id)
        self.lab.boxes.set_state(trainer.instance_id, InstanceState.TERMINATED)

    def drain(self, trainer: Trainer) -> None:
        """On a host the agent ends once its program has drained; on EC2 the machine idles."""
        super().drain(trainer)
        if trainer.phase.value == "drained" and trainer.instance_id.startswith("h-"):
            self.lab.boxes.set_state(trainer.instance_id, InstanceState.TERMINATED)

    def quiet_minute(self) -> None:
        """A minute in which nothing goes wrong, and whatever can go on does."""
        self.sweep(MINUTE, [])
        for trainer in self.awake():
            trainer.beat()
            trainer.enter()
            trainer.train()
            if trainer.asked == "drain" or (trainer.holds and trainer.instance_id in self.noticed):
                self.drain(trainer)

    def _meet_machines(self) -> None:
        known = set(self.trainers)
        super()._meet_machines()
        for instance_id in self.trainers.keys() - known:
            if is_host(self.region_of(instance_id)):
                self.trainers[instance_id].store = FromHost(instance_id, self)  # type: ignore[assignment]  # as is
