"""One embedded cloud behind a proxy, a run on it, and what can be seen of both from outside."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from spotrelay.aws.stack import Stack, find_stack
from spotrelay.console.bundle import pack
from spotrelay.console.demo.folder import built_assembly
from spotrelay.console.demo.processes import living_in
from spotrelay.console.submit import Submission, send
from spotrelay.console.wiring import Services, services_of
from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.run import Run
from spotrelay.core.spec import parse_spec
from spotrelay.localcloud.client import LocalCloud
from tests.fail_static.proxy import Mode, Proxy

T = TypeVar("T")

SCALE = 0.025
RUN = "static"
PATIENCE_S = 90.0
LOOK_S = 0.2
PROGRAM = Path(__file__).with_name("program.py")
DELIVERED_BY = ("sqs", "lambda")  # when one of them fails, no queue's message reaches a function
TIMINGS = Timings().scaled(SCALE)


@dataclass(frozen=True)
class Step:
    """A line that the program wrote."""

    at: float  # epoch seconds
    pid: int
    number: int


class Ground:
    """Everything that a test may use."""

    def __init__(self, cloud: LocalCloud, proxy: Proxy, stack: Stack, home: Path) -> None:
        self.cloud = cloud
        self.proxy = proxy
        self.services: Services = services_of(cloud, stack)  # type: ignore[arg-type]  # it makes clients as Clients does
        self._steps = home / "steps"
        self._enough = home / "enough"
        self._code = home / "code"

    def submit(self) -> None:
        """A run of the tiny program."""
        self._code.mkdir()
        shutil.copy(PROGRAM, self._code)
        bundle = pack(self._code)
        spec = {
            "command": [sys.executable, PROGRAM.name],
            "instance_types": ["g5.xlarge", "g5.2xlarge"],
            "code_key": bundle.key,
            "code_digest": bundle.digest,
            "env": {"STEPS": str(self._steps), "ENOUGH": str(self._enough), "PYTHONDONTWRITEBYTECODE": "1"},
            "cadence": {"every_steps": 15},
        }
        send(Submission(RUN, parse_spec(spec), bundle), self.services)

    def finish(self) -> None:
        """Let the program come to its end."""
        self._enough.touch()

    def until(self, found: Callable[[Run], T | None], what: str) -> T:
        """Look at the run until `found` gives something true, and give that."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            run = self.look()
            answer = found(run) if run is not None else None
            if answer:
                return answer
            if time.monotonic() > deadline:
                lines = [entry.text for entry in self.services.runs.timeline(RUN)][-12:]
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}. The run says: {lines}")
            time.sleep(LOOK_S)

    def look(self) -> Run | None:
        """The run, past the proxy; None at a busy moment of the cloud."""
        try:
            return self.services.runs.load(RUN)
        except (Contention, Unavailable):
            return None

    def newest_verified(self) -> tuple[int, int]:
        """Generation and save of the newest verified checkpoint; (0, 0) before the first."""
        run = self.look()
        ids = [(c.id.generation, c.id.save) for c in run.checkpoints if c.verified] if run else []
        return max(ids, default=(0, 0))

    def verified_after(self, known: tuple[int, int]) -> tuple[int, int]:
        """The newest verified checkpoint, once it is newer than this one."""
        return self.until(lambda run: max(n, known) if (n := self.newest_verified()) > known else None, "a checkpoint")

    def steps(self) -> list[Step]:
        """Whole lines of the program, oldest first."""
        text = self._steps.read_text() if self._steps.exists() else ""
        lines = [line.split() for line in text.split("\n")[:-1]]
        return [Step(float(at), int(pid), int(number)) for at, pid, number in lines]

    def asked_of_ec2(self, action: str) -> list[dict[str, Any]]:
        """EC2's own record of the calls of an action."""
        return [e for e in self.cloud.requests() if e["service"] == "ec2" and e["action"] == action]

    def machines(self) -> dict[int, str]:
        """Processes on all machines, from the kernel's table."""
        return living_in(self.cloud.home / "instances")

    @contextmanager
    def outage(self, service: str, mode: Mode) -> Iterator[None]:
        """Within, a service fails for all of the run's machines and functions; who looks from outside still sees.

        Machines lose it first and get it back last. So the control plane has looked at the very last heartbeat before,
        and looks again before the next one: the moment at which a clock alone would call the machine dead.
        """
        self.proxy.breaks(service, mode)
        if service == "dynamodb" and mode is not Mode.LOST_REPLIES:  # those take effect
            self.until(lambda run: run.silence is not None and run.silence.looks >= 2, "a look at the last heartbeat")
        self.proxy.breaks_for_functions()
        stopped = self._stop_deliveries() if service in DELIVERED_BY else []
        # nobody asks STS directly: it stands behind the credentials that a machine is given
        machines = [i["InstanceId"] for i in self.cloud.instances()] if service == "sts" else []
        try:
            for instance_id in machines:
                self.cloud.break_metadata(instance_id, 503)
            yield
            self._functions_first(stopped)
        finally:
            for instance_id in machines:
                self.cloud.break_metadata(instance_id, None)
            self.proxy.mend()

    def _functions_first(self, stopped: list[str]) -> None:
        """Let the control plane have it back, and look at the run."""
        for mapping in stopped:
            self.cloud.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=True)
        self.proxy.mend_for_functions()
        back = datetime.now(UTC)
        self.until(lambda run: run.silence is not None and run.silence.last_look > back, "a look at the run")

    def _stop_deliveries(self) -> list[str]:
        """Between queue and function there is no HTTP here that could fail: it is switched off instead."""
        functions = self.cloud.client("lambda")
        mappings = [m["UUID"] for m in functions.list_event_source_mappings()["EventSourceMappings"]]
        for mapping in mappings:
            functions.update_event_source_mapping(UUID=mapping, Enabled=False)
        return mappings


@contextmanager
def ground(home: Path) -> Iterator[Ground]:
    """A cloud with the built stack, every way to it but ours through the proxy."""
    with Proxy() as proxy, LocalCloud(home / "cloud", SCALE, way_in=proxy.url) as cloud:
        proxy.upstream = cloud.endpoint
        cloud.deploy(built_assembly())
        yield Ground(cloud, proxy, find_stack(cloud.client("cloudformation")), home)
