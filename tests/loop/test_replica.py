"""A run moves to another region: its checkpoint is read from the replica there, or from home if that lacks a part."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.assembly import main as assemble
from spotrelay.console.demo.reference import digest_in, losses_in
from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.comparing import replica_in
from spotrelay.core.run import Run
from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import assembly_or_skip
from tests.loop.shell import QUIET, SCALE, Shell, left_alone

pytestmark = [pytest.mark.loop, pytest.mark.timeout(400), pytest.mark.xdist_group("replica")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt_stdlib.py"
STEPS = 24
HOME, AWAY = "us-east-1", "us-west-2"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A stack with a further region and a replica there, deployed in the steps that infra/README.md gives."""
    assembly_or_skip()  # its bundles are in the cache then
    out = tmp_path_factory.mktemp("assembly")

    def deployed(name: str, stack: str, home: dict[str, str] | None, region: dict[str, Any]) -> dict[str, str]:
        context = {
            "home_region": HOME,
            "regions": json.dumps({AWAY: region}),
            **({"home": json.dumps(home)} if home else {}),
        }
        options = [option for key, value in context.items() for option in ("-c", f"{key}={value}")]
        assert assemble(["--out", str(out / name), "--arch", "host", "--python", "host", *options]) == 0
        return cloud.deploy(out / name, stack)

    with LocalCloud(tmp_path_factory.mktemp("cloud"), SCALE) as cloud:
        first = deployed("first", "Spotrelay", None, {})
        home = {"table": first["Table"], "bucket": first["Bucket"]}
        place = json.loads(deployed("second", f"Spotrelay-{AWAY}", home, {"replica": True})["Place"])
        deployed("third", "Spotrelay", home, {"replica": True, "place": place})
        yield cloud


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, float], str]:
    """Losses and digest of the same training, left alone and without Spotrelay."""
    said = left_alone(EXAMPLE, STEPS, tmp_path_factory.mktemp("expected"))
    return losses_in(said), digest_in(said)


@pytest.fixture
def shell(cloud: LocalCloud, tmp_path: Path) -> Shell:
    (tmp_path / "code").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "code")
    return Shell(cloud, tmp_path)


def submit(shell: Shell, run_id: str) -> None:
    spec = {
        "command": [sys.executable, EXAMPLE.name, "--steps", str(STEPS)],
        "instance_types": ["g5.xlarge"],
        "cadence": {"every_steps": 6},
        "env": QUIET,
    }
    (shell.folder / f"{run_id}.yaml").write_text(yaml.safe_dump(spec))
    shell.done("submit", f"{run_id}.yaml", "--code", "code", "--run-id", run_id)


def held_there(run: Run) -> CheckpointId | None:
    """The newest checkpoint, if the control plane has found all of it in the replica."""
    known, newest = replica_in(run, AWAY), max((c.id for c in run.checkpoints), default=None)
    return newest if newest is not None and known is not None and known.holds(newest) else None


def frozen(shell: Shell, run_id: str) -> CheckpointId:
    """Let the run train until the replica has a checkpoint, and halt its machine, so that no newer one comes."""
    shell.until(run_id, lambda run: held_there(run) is not None, "a checkpoint that is complete in the replica")
    shell.cloud.stop_group(machine_of(shell, run_id))
    shell.until(run_id, lambda run: held_there(run) is not None, "the newest one in the replica")
    found = held_there(shell.services.runs.load(run_id))
    assert found is not None
    return found


def machine_of(shell: Shell, run_id: str) -> str:
    machine = shell.services.runs.load(run_id).attempts[0].instance_id
    assert machine is not None
    return machine


def moved_away(shell: Shell, run_id: str) -> dict[str, Any]:
    """Take the run's machine at home without notice, when home has no more; the run once it is over."""
    shell.cloud.refuse({"region": HOME}, "InsufficientInstanceCapacity")
    shell.cloud.kill(machine_of(shell, run_id))
    over = shell.ends(run_id)
    shell.cloud.allow()
    second = next(i for i in shell.cloud.instances() if i["InstanceId"] == over["attempts"][1]["machines"][0])
    assert second["Placement"]["AvailabilityZone"].startswith(AWAY)
    return over


def read_by(shell: Shell, machine: str, run_id: str) -> dict[str, set[str]]:
    """Which shards an instance got from which bucket, as the cloud itself saw it."""
    found: dict[str, set[str]] = {}
    for request in shell.cloud.requests():
        target = str(request["target"])
        if (
            request.get("instance_id") == machine
            and request["action"] == "GetObject"
            and request["status"] in (200, 206)
        ):
            bucket, _, key = target.partition("/")
            if key.startswith(f"runs/{run_id}/shards/"):
                found.setdefault(bucket, set()).add(key)
    return found


def buckets(shell: Shell) -> tuple[str, str]:
    """Names of the bucket at home and of its replica, as the stack says."""
    stack = shell.cloud.client("cloudformation").describe_stacks(StackName="Spotrelay")["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return str(outputs["Bucket"]), str(json.loads(outputs["Replicas"])[AWAY])


def test_a_run_that_moves_reads_its_checkpoint_from_the_replica_and_goes_on_bit_for_bit(
    shell: Shell, expected: tuple[dict[int, float], str]
) -> None:
    submit(shell, "moves")
    newest = frozen(shell, "moves")

    over = moved_away(shell, "moves")

    told, log = shell.done("events", "moves"), shell.log("moves")
    sources = read_by(shell, over["attempts"][1]["machines"][0], "moves")
    assert set(sources) == {buckets(shell)[1]}, "every shard came from there"
    assert f"resumed from checkpoint {newest}" in told and f"read from the replica in {AWAY}" in told
    assert (digest_in(log), losses_in(log)) == (expected[1], expected[0])


@pytest.mark.long
def test_a_replica_that_lacks_a_shard_is_passed_over_and_home_is_read(
    shell: Shell, expected: tuple[dict[int, float], str]
) -> None:
    submit(shell, "lacks")
    newest = frozen(shell, "lacks")
    home, replica = buckets(shell)
    s3, prefix = shell.cloud.client("s3", AWAY), f"runs/lacks/shards/{newest.generation:06d}/{newest.save:06d}/"
    lost = s3.list_object_versions(Bucket=replica, Prefix=prefix)["Versions"][0]
    s3.delete_object(Bucket=replica, Key=lost["Key"], VersionId=lost["VersionId"])

    over = moved_away(shell, "lacks")

    told = shell.done("events", "lacks")
    sources = read_by(shell, over["attempts"][1]["machines"][0], "lacks")
    assert lost["Key"] in sources[home]
    assert lost["Key"] not in sources.get(replica, set())
    assert f"checkpoint {newest} is read at home: the replica in {AWAY} does not have it whole" in told
    assert f"resumed from checkpoint {newest}" in told, "home's copy is as good as ever"
    assert "condemned" not in told
    assert digest_in(shell.log("lacks")) == expected[1]
