"""The whole loop with a machine of one's own: real sshd, real functions, real training; lost to EC2 and won back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from spotrelay.aws.stack import find_stack
from spotrelay.console.demo.folder import built_assembly
from spotrelay.console.demo.processes import living_in
from spotrelay.console.wiring import services_of
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.placement import LOST_FOR
from spotrelay.core.run import Attempt, Run, RunStatus
from spotrelay.hosts.keeper import members
from spotrelay.localcloud.client import LocalCloud
from tests.hosts.sshd import Sshd, sshd
from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.timeout(280), pytest.mark.xdist_group("own-machine")]

T = TypeVar("T")
SCALE = 0.02
RUN = "own"
PROGRAM = Path(__file__).with_name("program.py")
KEY = "/spotrelay-hosts/lab1"
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Step:
    """A line that the program wrote."""

    number: int
    loss: str
    machine: str


class Ground:
    """A cloud with the built stack, and a lab beside it."""

    def __init__(self, cloud: LocalCloud, lab: Sshd, home: Path) -> None:
        self.cloud = cloud
        self.lab = lab
        self.home = home
        stack = find_stack(cloud.client("cloudformation"))
        self.runs = services_of(cloud, stack).runs  # type: ignore[arg-type]  # it makes clients as Clients does
        self.steps_file = home / "steps"
        self.enough = home / "enough"

    def spotrelay(self, *arguments: str) -> dict[str, Any]:
        """What a command answers, run as a person runs it."""
        return dict(json.loads(self.said(*arguments, "--json")))

    def said(self, *arguments: str) -> str:
        """What it prints."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        done = subprocess.run(
            [sys.executable, "-m", "spotrelay.console.main", *arguments],
            env={**outside, **self.cloud.environment()}, cwd=self.home, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self) -> dict[str, Any]:
        """Register the lab's host as its person would."""
        self.cloud.client("ssm").put_parameter(Name=KEY, Value=self.lab.private_key, Type="SecureString")
        host = self.lab.host()
        return self.spotrelay(
            "hosts", "add", "lab1", self.lab.target, "--key-secret", f"ssm:{KEY}", "--host-key", host.host_key,
            "--kind", "lab", "--python", sys.executable, "--folder", host.folder,
        )  # fmt: skip

    def submit(self) -> None:
        """A run that wants the lab's host first."""
        code = self.home / "code"
        code.mkdir()
        (code / "train.py").write_text(PROGRAM.read_text())
        spec = {
            "command": [sys.executable, "train.py"],
            "instance_types": ["g5.xlarge"],
            "own_machines": "first",
            "own_kinds": ["lab"],
            "env": {"STEPS": str(self.steps_file), "ENOUGH": str(self.enough), "PYTHONDONTWRITEBYTECODE": "1"},
            "cadence": {"every_steps": 20},
        }
        (self.home / "run.yaml").write_text(json.dumps(spec))
        self.spotrelay("submit", "run.yaml", "--code", "code", "--run-id", RUN)

    def until(self, found: Callable[[Run], T | None], what: str) -> T:
        """Look at the run until `found` gives something true, and give that."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = found(self.runs.load(RUN))
            except (Contention, Unavailable):
                answer = None
            if answer:
                return answer
            if time.monotonic() > deadline:
                lines = [f"{entry.at:%S.%f} {entry.text}" for entry in self.runs.timeline(RUN)][-15:]
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}. The run says: {lines}")
            time.sleep(0.2)

    def training_on(self, kind: str, after: int) -> str:
        """The machine of this kind, once an attempt after this one has a verified checkpoint of its own there."""

        def there(run: Run) -> str | None:
            now = run.current
            mine = now and any(c.verified and c.id.generation == now.generation for c in run.checkpoints)
            right = now and now.generation > after and (now.instance_id or "").startswith(kind)
            return now.instance_id if now and mine and right and run.status is RunStatus.RUNNING else None

        return self.until(there, f"an attempt on {kind} after attempt {after}")

    def shim_of(self, machine: str) -> str:
        """Where the Python of the program on this machine of the lab found the shim, as its agent logged it."""
        generation = next(a.generation for a in self.runs.load(RUN).attempts if machine in a.instance_ids)
        log = self.said("logs", RUN, "--attempt", str(generation))
        found = re.search(r"trainer_shim \S+ in (\S+),", log)
        assert found is not None, log
        return found[1]

    def generation(self) -> int:
        """Of the newest attempt."""
        current = self.runs.load(RUN).current
        return current.generation if current else 0

    def steps(self) -> list[Step]:
        """Whole lines of the program, oldest first."""
        lines = [line.split() for line in self.steps_file.read_text().split("\n")[:-1]]
        return [Step(int(number), loss, machine) for number, loss, machine, _ in lines]

    def uninterrupted(self, total: int) -> list[str]:
        """The losses of the same program, without Spotrelay and in one go."""
        out = self.home / "uninterrupted"
        own = {"STEPS": str(out), "ENOUGH": str(self.home / "never"), "TOTAL": str(total), "STEP_S": "0"}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPOTRELAY_"))}
        subprocess.run([sys.executable, str(PROGRAM)], env={**clean, **own}, check=True, timeout=60)
        return [line.split()[1] for line in out.read_text().splitlines()]


@contextmanager
def ground(home: Path) -> Iterator[Ground]:
    with LocalCloud(home / "cloud", SCALE) as cloud:
        cloud.deploy(built_assembly())
        reached = {"AWS_ENDPOINT_URL": cloud.endpoint, "OMP_NUM_THREADS": "1"}
        with sshd(home / "lab1", "lab1", reached) as lab:
            made = Ground(cloud, lab, home)
            try:
                yield made
            finally:
                for machine in _machines_of(home):
                    for pid in members(machine):
                        os.kill(pid, signal.SIGKILL)


def _machines_of(home: Path) -> list[str]:
    return [path.name for path in (home / "lab1" / "machines").glob("*/lab1/h-*")]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Ground]:
    assembly_or_skip()
    with ground(tmp_path) as made:
        yield made


def _forgotten(lost: Attempt) -> bool:
    return lost.ended_at is not None and datetime.now(UTC) > lost.ended_at + LOST_FOR * SCALE


def kill_agent(machine: str) -> None:
    """SIGKILL to the agent alone: its guard and its program are still there."""
    for pid in members(machine):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(b"/agents/" in word for word in words):
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError(f"no agent among the processes of {machine}")


def test_a_run_goes_from_the_lab_to_ec2_and_back_and_its_losses_are_those_of_an_uninterrupted_one(lab: Ground) -> None:
    said = lab.register()
    lab.submit()

    first = lab.training_on("h-", after=0)
    kill_agent(first)
    second = lab.training_on("i-", after=lab.generation())
    lab.until(lambda run: _forgotten(run.attempts[0]), "the loss of the lab's host is no longer fresh")
    lab.cloud.interrupt(second)
    third = lab.training_on("h-", after=lab.generation())
    before = lab.generation()
    told = lab.spotrelay("hosts", "drain", "lab1")
    fourth = lab.training_on("i-", after=before)
    lab.enough.touch()
    lab.until(lambda run: run.status is RunStatus.SUCCEEDED, "the end of the run")

    steps = lab.steps()
    reference = lab.uninterrupted(steps[-1].number + 1)
    assert said["check"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["runs"] == [RUN]
    assert {step.machine for step in steps} == {first, second, third, fourth}
    assert {step.number for step in steps} == set(range(len(reference)))
    assert {step.number: step.loss for step in steps} == dict(enumerate(reference))
    assert all(reference[step.number] == step.loss for step in steps), "a step done again had another loss"
    drained = [step.number for step in steps if step.machine == third]
    went_on = [step.number for step in steps if step.machine == fourth]
    assert min(went_on) == max(drained) + 1, "a drain costs no step"
    assert lab.shim_of(third).startswith(f"{lab.lab.folder}/machines/Spotrelay/lab1/agents/"), "the agent brought it"
    assert members(first) == members(third) == []
    assert living_in(lab.cloud.home / "instances") == {}
