"""The command line as a process, against the stack deployed to the embedded cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spotrelay.aws.stack import find_stack
from spotrelay.localcloud.client import LocalCloud
from tests.console.conftest import SPEC
from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.xdist_group("console-cloud")]

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    assembly = assembly_or_skip()
    with LocalCloud(tmp_path_factory.mktemp("cloud"), 0.05) as cloud:
        cloud.deploy(assembly)
        yield cloud


@pytest.fixture
def call(cloud: LocalCloud, tmp_path: Path) -> Call:
    outside = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "spotrelay.console.main", *arguments],
            env={**outside, **cloud.environment(), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def switch(cloud: LocalCloud, value: str) -> None:
    name = find_stack(cloud.client("cloudformation")).switch
    cloud.client("ssm").put_parameter(Name=name, Value=value, Overwrite=True)


def test_a_run_is_submitted_followed_and_cancelled(cloud: LocalCloud, call: Call, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SPEC)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("import time\nprint('hello', flush=True)\ntime.sleep(600)\n")
    switch(cloud, "off")  # no machine: this test is about the commands

    submitted = call("submit", "run.yaml", "--code", "code", "--run-id", "cli", "--json")
    listed = call("status", "--json")
    cancelled = call("cancel", "cli", "--reason", "enough", "--json")
    followed = call("events", "cli", "--follow", "--json")
    again = call("cancel", "cli")
    status = call("status", "cli", "--json")

    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert submitted.returncode == 0, submitted.stderr
    assert "cli" in [run["run_id"] for run in json.loads(listed.stdout)]
    assert cancelled.returncode == 0, cancelled.stderr
    assert followed.returncode == 1
    assert {"submitted", "cancelled"} <= {line["kind"] for line in lines}
    assert again.returncode == 5
    assert (status.returncode, json.loads(status.stdout)["status"]) == (1, "cancelled")


def test_the_doctor_finds_a_healthy_stack_and_says_what_it_cannot_see(cloud: LocalCloud, call: Call) -> None:
    switch(cloud, "on")

    said = call("doctor", "--json")

    found: dict[str, Any] = {check["name"]: check for check in map(json.loads, said.stdout.splitlines())}
    assert said.returncode == 0, said.stdout + said.stderr
    wanted = ("credentials", "stack", "template", "subnets", "quota", "bucket", "table", "budget", "switch", "launch")
    assert tuple(found) == wanted
    assert {name: check["state"] for name, check in found.items() if name != "quota"} == {
        name: "ok" for name in wanted if name != "quota"
    }
    assert cloud.instances() == []


def test_the_budget_of_a_stack_that_counts_no_money_says_how_to_let_it(cloud: LocalCloud, call: Call) -> None:
    said, told = call("budget"), call("budget", "--json")

    assert (said.returncode, told.returncode) == (0, 0), said.stderr + told.stderr
    assert "budget_dollars_per_day" in said.stdout
    about = json.loads(told.stdout)
    assert (about["counted"], about["set_aside"], about["holds"]) == (False, 0, [])
    assert call("budget", "--day", "soon").returncode == 2


def test_the_doctor_names_what_is_wrong_with_its_remedy(cloud: LocalCloud, call: Call) -> None:
    switch(cloud, "off")
    bucket = find_stack(cloud.client("cloudformation")).bucket
    versioning = {"Bucket": bucket, "VersioningConfiguration": {"Status": "Suspended"}}
    cloud.client("s3").put_bucket_versioning(**versioning)
    try:
        said = call("doctor")
    finally:
        versioning["VersioningConfiguration"] = {"Status": "Enabled"}
        cloud.client("s3").put_bucket_versioning(**versioning)
        switch(cloud, "on")

    failed = [line for line in said.stdout.splitlines() if line.startswith("FAILED")]
    assert said.returncode == 1
    assert [line.split()[1] for line in failed] == ["bucket", "switch"]
    assert "put-parameter" in failed[1]


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"SPOTRELAY_STACK": "Nowhere"}, "no stack Nowhere"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "region"),
    ],
)
def test_without_stack_credentials_or_region_the_exit_code_is_4(
    call: Call, environment: dict[str, str], word: str
) -> None:
    said = call("status", **environment)
    examined = call("doctor", **environment)

    assert (said.returncode, examined.returncode) == (4, 4)
    assert word in said.stderr
    assert "Traceback" not in said.stderr + examined.stderr


def test_requirements_become_the_types_that_the_stacks_regions_offer(
    cloud: LocalCloud, call: Call, tmp_path: Path
) -> None:
    wanted = "command: [python, train.py]\ninstance_requirements: {gpus: 1, gpu_memory_gib: %s, max_price: %s}\n"
    (tmp_path / "run.yaml").write_text(wanted % (24, 0.7))
    (tmp_path / "impossible.yaml").write_text(wanted % (200, 0.7))
    switch(cloud, "off")

    submitted = call("submit", "run.yaml", "--run-id", "required", "--json")
    told = call("events", "required", "--json")
    refused = call("submit", "impossible.yaml", "--run-id", "impossible")
    call("cancel", "required")

    assert submitted.returncode == 0, submitted.stderr
    assert "pools are allowed, of g5.xlarge, g6.xlarge" in told.stdout
    assert "g5.2xlarge" not in told.stdout  # dearer than the ceiling
    assert refused.returncode != 0
    assert "no instance type in us-east-1 fits. Nearest: g6e.xlarge" in refused.stderr, refused.stderr


def test_a_table_that_is_gone_is_told_without_a_traceback(cloud: LocalCloud, call: Call) -> None:
    table, dynamodb = find_stack(cloud.client("cloudformation")).table, cloud.client("dynamodb")
    dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)
    dynamodb.delete_table(TableName=table)

    said = call("status")
    examined = call("doctor")

    assert said.returncode == 4
    assert "Traceback" not in said.stderr
    assert examined.returncode == 1
    assert "FAILED  table" in examined.stdout
