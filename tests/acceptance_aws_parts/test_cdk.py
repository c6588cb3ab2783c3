"""What the CDK command line is called with, and that a signal never leaves one behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.config import read_config
from tests.acceptance_aws import cdk
from tests.acceptance_aws.cdk import CdkDeployment, context, deploy_command, destroy_command
from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.options import Options, parse

OPTIONS = Options("SpotrelayTest-abc123")


def test_the_context_is_one_that_the_app_takes() -> None:
    config = read_config(context(OPTIONS, "eu-west-1"))

    assert config.stack == "SpotrelayTest-abc123" and config.home_region == "eu-west-1"
    assert not config.protected
    assert config.volume_gib == 20 and config.image == OPTIONS.image


def test_every_name_that_is_drawn_is_one_that_the_app_takes_and_teardown_knows() -> None:
    drawn = parse([]).stack

    assert read_config({"spotrelay:stack": drawn}).stack == drawn
    assert parse(["--teardown", drawn]).teardown_only


def test_nothing_asks_a_question(tmp_path: Path) -> None:
    with_context = context(OPTIONS, "eu-west-1")

    assert "never" in deploy_command("S", with_context, tmp_path)
    assert "--force" in destroy_command("S", with_context, tmp_path)
    for command in (deploy_command("S", with_context, tmp_path), destroy_command("S", with_context, tmp_path)):
        assert command[:3] == ["npx", "--no-install", "cdk"] and command[4] == "S"


def test_a_failed_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npx(tmp_path, "exit 3", monkeypatch)

    with pytest.raises(AcceptanceFailed, match="`npx --no-install cdk deploy` ended with status 3"):
        CdkDeployment(OPTIONS, "eu-west-1", tmp_path).deploy()


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npx(tmp_path, f"sleep 300 & echo $! > {tmp_path}/child; wait", monkeypatch)
    monkeypatch.setattr(cdk, "DESTROY_S", 1.0)

    with pytest.raises(AcceptanceFailed, match="was not over after 1 s"):
        CdkDeployment(OPTIONS, "eu-west-1", tmp_path).destroy()

    child = (tmp_path / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False).stdout
    assert state.strip()[:1] in ("", "Z")


def fake_npx(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In front of every other npx; the deployment puts this interpreter's folder before it, where there is none."""
    npx = folder / "npx"
    npx.write_text(f"#!/bin/sh\n{body}\n")
    npx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("sys.executable", str(folder / "python"))
