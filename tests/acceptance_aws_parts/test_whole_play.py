"""The acceptance test itself, played on the embedded cloud; only FIS and the CDK command line are stood in for."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from spotrelay.console.bundle import pack
from spotrelay.console.demo.folder import built_assembly
from spotrelay.console.demo.processes import living_in
from spotrelay.console.submit import Submission
from spotrelay.core.spec import parse_spec
from spotrelay.localcloud.client import LocalCloud
from tests.acceptance_aws.command import perform
from tests.acceptance_aws.money import ask_prices
from tests.acceptance_aws.options import Options
from tests.acceptance_aws.play import Account
from tests.acceptance_aws.watch import Clock
from tests.acceptance_aws.workload import SCRIPT
from tests.acceptance_aws_parts.fault_injection import FaultInjection
from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600), pytest.mark.xdist_group("acceptance")]

SCALE = 0.05
TYPES = ("g5.xlarge", "g5.2xlarge")
STEPS = 90


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    assembly_or_skip()
    with LocalCloud(tmp_path / "cloud", SCALE) as cloud:
        yield cloud


@dataclass
class Deployment:
    """In place of the CDK command line: the assembly of this repository, unprotected as in the acceptance test."""

    cloud: LocalCloud
    scratch: Path

    def deploy(self) -> None:
        assembly = self.scratch / "assembly"
        shutil.copytree(built_assembly(), assembly)
        for path in assembly.glob("*.template.json"):
            template = json.loads(path.read_text())
            for resource in template["Resources"].values():
                if "DeletionProtectionEnabled" in resource.get("Properties", {}):
                    resource["Properties"]["DeletionProtectionEnabled"] = False
            path.write_text(json.dumps(template))
        self.cloud.deploy(assembly)

    def destroy(self) -> None:
        self.cloud.client("cloudformation").delete_stack(StackName="Spotrelay")


class Emulated:
    """Clients of the embedded cloud, with the stand-in for FIS among them."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.region = cloud.region
        self.fis = FaultInjection(cloud.interrupt)
        self._cloud = cloud

    def client(self, service: str, region: str | None = None) -> Any:
        return self.fis if service == "fis" else self._cloud.client(service, region)


def submissions(code: Path) -> Callable[[str], Submission]:
    code.mkdir()
    (code / SCRIPT.name).write_bytes(SCRIPT.read_bytes())

    def make(run_id: str) -> Submission:
        bundle = pack(code)
        spec = {
            "command": [sys.executable, SCRIPT.name, "--steps", str(STEPS)],
            "instance_types": list(TYPES),
            "code_key": bundle.key,
            "code_digest": bundle.digest,
            "env": {"PYTHONDONTWRITEBYTECODE": "1"},
            "cadence": {"every_steps": 6},
        }
        return Submission(run_id, parse_spec(spec), bundle)

    return make


def account_of(clients: Emulated) -> Account:
    prices = ask_prices(clients.client("ec2"), TYPES, 20, datetime.now(UTC))
    clock = Clock(lambda: datetime.now(UTC), lambda seconds: time.sleep(seconds * SCALE))
    prefix = f"arn:aws:ec2:{clients.region}:000000000000:instance/"
    return Account(clients, lambda i: prefix + i, prices, clock, print)  # type: ignore[arg-type]


def what_is_left(cloud: LocalCloud) -> list[str]:
    left = [bucket["Name"] for bucket in cloud.client("s3").list_buckets()["Buckets"]]
    left += cloud.client("dynamodb").list_tables()["TableNames"]
    left += [role["RoleName"] for role in cloud.client("iam").list_roles()["Roles"]]
    left += [i["InstanceId"] for i in cloud.instances() if i["State"]["Name"] != "terminated"]
    return left


def test_an_interrupted_run_equals_one_that_was_left_alone_and_nothing_stays(
    cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients, options = Emulated(cloud), Options("Spotrelay", dollars=5.0, minutes=8.0, types=TYPES)
    before = what_is_left(cloud)

    code = perform(options, account_of(clients), Deployment(cloud, tmp_path), submissions(tmp_path / "code"))

    said = capsys.readouterr().out.splitlines()
    last = json.loads(said[-1])
    assert code == 0, "\n".join(said[-60:])
    assert last["verdict"] == "passed" and last["digests_equal"] and last["losses"] == 1 and last["machines"] == 2
    assert last["left_behind"] == [] and 0 < last["dollars"] < last["ceiling"]
    assert [name for name in what_is_left(cloud) if "cdk-" not in name] == before
    assert not clients.fis.templates
    assert not living_in(cloud.home / "instances")


def test_at_the_ceiling_everything_is_ended_and_removed(
    cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients, options = Emulated(cloud), Options("Spotrelay", dollars=0.02, minutes=8.0, types=TYPES)
    before = what_is_left(cloud)

    code = perform(options, account_of(clients), Deployment(cloud, tmp_path), submissions(tmp_path / "code"))

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 1 and last["verdict"] == "failed"
    assert "0.02 is the ceiling" in last["problems"][0]
    assert last["left_behind"] == []
    assert [name for name in what_is_left(cloud) if "cdk-" not in name] == before
