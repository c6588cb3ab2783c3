"""The bundle that is sent works on a machine that has nothing but Python."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from infra.agent import agent_archive
from spotrelay.console.demo.reference import digest_in, losses_in
from tests.acceptance_aws.options import Options
from tests.acceptance_aws.workload import NEEDS, make_code, pinned, setup, submission
from tests.handlers.lambda_python import bare_python


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    sent = submission(Options("SpotrelayTest-x"), "interrupted", make_code(tmp_path / "code"))
    assert sent.bundle is not None
    with tarfile.open(fileobj=io.BytesIO(sent.bundle.data)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    return tmp_path / "unpacked"


def test_the_script_trains_with_the_shim_that_the_agent_brings(unpacked: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(agent_archive().path).extractall(tmp_path / "agent")
    path = os.pathsep.join([sysconfig.get_paths()["purelib"], str(tmp_path / "agent" / "shim")])
    program = [*bare_python(), "gpt_stdlib.py", "--steps", "3"]

    done = subprocess.run(
        program, cwd=unpacked, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=200
    )

    assert done.returncode == 0, done.stderr
    assert sorted(losses_in(done.stdout)) == [0, 1, 2] and len(digest_in(done.stdout)) == 64


def test_pip_comes_along_and_runs_without_any_other_package(unpacked: Path) -> None:
    done = subprocess.run([*bare_python(), "-m", "pip", "--version"], cwd=unpacked, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert str(unpacked) in done.stdout


def test_a_run_has_limits_of_its_own(tmp_path: Path) -> None:
    spec = submission(Options("SpotrelayTest-x", dollars=0.3), "r", make_code(tmp_path / "code")).spec

    assert spec.limits.max_dollars == 0.3 and not spec.on_demand
    assert spec.limits.max_launches < 10 and spec.limits.max_hours <= 2


def test_what_is_installed_is_what_this_repository_pins() -> None:
    steps = setup("/usr/bin/python3")

    assert steps[0][-1] == pinned("torch") and [pinned(name) for name in NEEDS] == steps[1][-len(NEEDS) :]
    assert all("==" in pinned(name) for name in ("torch", *NEEDS))
    assert json.dumps(steps).count("/opt/acceptance") == 2
    assert sys.version_info >= (3, 11)
