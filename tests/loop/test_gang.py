"""Two embedded machines train one model by torchrun; EC2 takes one of them, and a new pair goes on bit for bit."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from spotrelay.aws.stack import find_stack
from spotrelay.console.bundle import pack
from spotrelay.console.demo.processes import living_in
from spotrelay.console.demo.reference import digest_in, losses_in, outside_spotrelay
from spotrelay.console.logs import chunks
from spotrelay.console.submit import Submission, send
from spotrelay.console.wiring import Services, services_of
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.run import Run, RunStatus
from spotrelay.core.spec import parse_spec
from spotrelay.localcloud.client import LocalCloud
from tests.loop.shell import QUIET

pytestmark = [pytest.mark.loop, pytest.mark.timeout(300), pytest.mark.xdist_group("gang")]

T = TypeVar("T")

EXAMPLE = Path(__file__).parents[2] / "examples" / "ddp_stdlib.py"
STEPS = 60
PATIENCE_S = 100.0
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, float], str]:
    """Losses and digest of the same two nodes, left alone and without Spotrelay."""
    out = tmp_path_factory.mktemp("expected")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    nodes = [
        subprocess.Popen(
            [*TORCHRUN, str(EXAMPLE), "--steps", str(STEPS), "--out", str(out)],
            env={
                **outside_spotrelay(), **QUIET, "PET_NNODES": "2", "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0]
    return losses_in(said[0]), digest_in(said[0])


class Ground:
    """The run and what can be seen of it from outside."""

    def __init__(self, cloud: LocalCloud, run_id: str, code: Path) -> None:
        self.cloud = cloud
        self.run_id = run_id
        self._before = {i["InstanceId"] for i in cloud.instances()}
        stack = find_stack(cloud.client("cloudformation"))
        self.services: Services = services_of(cloud, stack)  # type: ignore[arg-type]  # it makes clients as Clients does
        code.mkdir()
        shutil.copy(EXAMPLE, code)
        self._bundle = pack(code)

    def submit(self, **more: Any) -> None:
        spec = {
            "command": [*TORCHRUN, EXAMPLE.name, "--steps", str(STEPS)],
            "instance_types": ["g5.xlarge"],
            "nodes": 2,
            "code_key": self._bundle.key,
            "code_digest": self._bundle.digest,
            "env": QUIET,
            "cadence": {"every_steps": 10},
            **more,
        }
        send(Submission(self.run_id, parse_spec(spec), self._bundle), self.services)

    def until(self, found: Callable[[Run], T | None], what: str) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                run = self.services.runs.load(self.run_id)
            except (Contention, Unavailable):
                run = None
            answer = found(run) if run is not None else None
            if answer:
                return answer
            if time.monotonic() > deadline or (run is not None and run.status.final):
                told = [entry.text for entry in self.services.runs.timeline(self.run_id)]
                raise AssertionError(
                    f"{what}: not within {PATIENCE_S:.0f} s. {json.dumps(told, indent=1)}\n{self.log()}"
                )
            time.sleep(0.2)

    def log(self) -> str:
        return "".join(chunk.text for chunk in chunks(self.services, self.run_id, None, follow=False))

    def timeline(self) -> list[str]:
        return [entry.text for entry in self.services.runs.timeline(self.run_id)]

    def launches(self) -> list[dict[str, Any]]:
        return [e for e in self.cloud.requests() if e["service"] == "ec2" and e["action"] == "CreateFleet"]

    def leaves_nothing_behind(self, run: Run) -> None:
        """Every machine of the run is recorded, and ends."""
        recorded = {instance_id for attempt in run.attempts for instance_id in attempt.instance_ids}
        deadline = time.monotonic() + 30
        while True:
            states = {i["InstanceId"]: i["State"]["Name"] for i in self.cloud.instances()}
            ours = {name: state for name, state in states.items() if name not in self._before}
            if set(ours.values()) <= {"terminated"} or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert ours == dict.fromkeys(recorded, "terminated")
        assert living_in(self.cloud.home / "instances") == {}


def has_saved(generation: int) -> Callable[[Run], Run | None]:
    def found(run: Run) -> Run | None:
        return run if any(c.id.generation == generation and c.verified for c in run.checkpoints) else None

    return found


def test_a_gang_of_which_ec2_takes_one_machine_goes_on_bit_for_bit_on_the_other_and_a_new_one(
    cloud: LocalCloud, expected: tuple[dict[int, float], str], tmp_path: Path
) -> None:
    ground = Ground(cloud, "reunited", tmp_path / "code")
    ground.submit()
    first = ground.until(has_saved(1), "a verified checkpoint of the first gang").attempts[0]
    assert len(first.machines) == 2

    cloud.interrupt(first.instance_ids[1])
    done = ground.until(lambda run: run if run.status.final else None, "the end of the run")

    said, (losses, digest) = ground.log(), expected
    assert done.status is RunStatus.SUCCEEDED, ground.timeline()
    lost, heir = done.attempts
    assert heir.instance_ids[0] == first.instance_ids[0]
    assert heir.instance_ids[1] not in first.instance_ids
    assert heir.pool == lost.pool
    assert len(ground.launches()) == 2
    # drained together: the last checkpoint is of a notice, and the next gang goes on from it
    assert lost.drained_at is not None
    resumed = next(c for c in done.checkpoints if str(c.id) == heir.resumed_checkpoint)
    assert (resumed.commit.reason.value, resumed.id.generation) == ("notice", 1)
    assert digest_in(said) == digest
    assert losses_in(said) == losses
    ground.leaves_nothing_behind(done)


@pytest.mark.long
def test_a_gang_that_loses_its_first_machine_without_a_word_moves_as_a_whole_where_its_zone_has_none(
    cloud: LocalCloud, expected: tuple[dict[int, float], str], tmp_path: Path
) -> None:
    ground = Ground(cloud, "moved", tmp_path / "code")
    ground.submit()
    first = ground.until(has_saved(1), "a verified checkpoint of the first gang").attempts[0]
    assert first.pool is not None

    cloud.refuse({"zone": first.pool.zone}, "InsufficientInstanceCapacity")
    cloud.kill(first.instance_ids[0])
    done = ground.until(lambda run: run if run.status.final else None, "the end of the run")
    cloud.allow({})

    said, (losses, digest) = ground.log(), expected
    assert done.status is RunStatus.SUCCEEDED, ground.timeline()
    heir = done.attempts[-1]
    assert not set(heir.instance_ids) & set(first.instance_ids)
    assert heir.pool is not None and heir.pool.zone != first.pool.zone
    assert not any(attempt.crashed for attempt in done.attempts), ground.timeline()
    assert digest_in(said) == digest
    assert losses_in(said) == losses
    ground.leaves_nothing_behind(done)
