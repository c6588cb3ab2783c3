"""A person at a shell before the embedded cloud: what is done is done by the real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spotrelay.aws.stack import find_stack
from spotrelay.console.demo.reference import outside_spotrelay
from spotrelay.console.status import closely
from spotrelay.console.wiring import Services, services_of
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.run import Run, RunStatus
from spotrelay.localcloud.client import LocalCloud

PATIENCE_S = 100.0  # for one thing to come about
LOOK_S = 0.2
SCALE = 0.05  # of every waiting time
QUIET = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}  # of the programs that are trained


def left_alone(script: Path, steps: int, out: Path) -> str:
    """What the same training prints when nobody takes its machine, and without Spotrelay."""
    done = subprocess.run(
        [sys.executable, str(script), "--steps", str(steps), "--out", str(out)],
        env={**outside_spotrelay(), **QUIET},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


class Shell:
    """Calls `spotrelay` against a cloud, from a folder of its own."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        stack = find_stack(cloud.client("cloudformation"))
        self.services: Services = services_of(cloud, stack)  # type: ignore[arg-type]  # it makes clients as Clients does

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPOTRELAY_"))}
        return subprocess.run(
            [sys.executable, "-m", "spotrelay.console.main", *arguments],
            env={**outside, **self.cloud.environment()},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def done(self, *arguments: str) -> str:
        """What a command that has to succeed prints."""
        said = self.call(*arguments)
        assert said.returncode == 0, (arguments, said.stdout, said.stderr)
        return said.stdout

    def until(self, run_id: str, found: Callable[[Run], bool], what: str) -> dict[str, Any]:
        """Look at a run until something is so; what `status` knows of it then. Looks cost no process."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                run = self.services.runs.load(run_id)
            except (Contention, Unavailable):  # a busy moment of the cloud; the deadline still counts
                run = None
            if run is not None and found(run):
                return closely(run, self.services.clock.now())
            if time.monotonic() > deadline or (run is not None and run.status.final):
                raise AssertionError(f"{what}: not seen. {self.call('events', run_id).stdout}\n{self.log(run_id)}")
            time.sleep(LOOK_S)

    def ends(self, run_id: str, status: RunStatus = RunStatus.SUCCEEDED) -> dict[str, Any]:
        """The run once it is over, in the way that is expected."""
        return self.until(run_id, lambda run: run.status is status, f"the end of {run_id}, {status.value}")

    def log(self, run_id: str) -> str:
        return self.call("logs", run_id).stdout

    def machine_state(self, instance_id: str) -> str:
        """What EC2 itself says of a machine."""
        return str(next(i for i in self.cloud.instances() if i["InstanceId"] == instance_id)["State"]["Name"])
