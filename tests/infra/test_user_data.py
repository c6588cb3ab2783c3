"""The resume script as machines get it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.constructs import launchpad
from infra.constructs.launchpad import USER_DATA_MOST, Facts, UserDataTooLong, user_data
from tests.infra.reading import Template

FACTS = Facts(
    agent_bucket="cdk-hnb659fds-assets-111122223333-us-east-1",
    agent_key="abc.zip",
    agent_sha256="0" * 64,
    table="the-table",
    bucket="the-bucket",
    bus="Spotrelay",
    home_region="us-east-1",
    stack="Spotrelay",
    python="/opt/pytorch/bin/python",
)


@pytest.fixture(scope="module")
def script(home: Template) -> str:
    """The user data, references filled in."""
    text = home.one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]
    assert isinstance(text, str)
    return text


def test_it_fits_into_user_data(script: str) -> None:
    assert len(script.encode()) < USER_DATA_MOST


def test_no_placeholder_is_left(script: str) -> None:
    assert re.findall(r"@[A-Z0-9_]+@", script) == []


def test_it_is_a_script_that_bash_understands_and_shellcheck_accepts(script: str, tmp_path: Path) -> None:
    path = tmp_path / "resume.sh"
    path.write_text(script)

    syntax = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    style = subprocess.run(
        [str(Path(sys.executable).parent / "shellcheck"), str(path)], capture_output=True, text=True, check=False
    )

    assert syntax.returncode == 0, syntax.stderr
    assert style.returncode == 0, style.stdout


def test_its_clock_runs_at_the_pace_of_the_world(script: str) -> None:
    assert re.findall(r"(?m)^time_scale=(.*)$", script) == ["1"]


def test_a_value_with_quotes_and_commands_stays_a_value() -> None:
    nasty = "a'b\"c $(touch /tmp/owned) `id` ; \\ &"

    text = user_data(replace(FACTS, table=nasty))

    line = next(line for line in text.splitlines() if line.startswith("table="))
    shown = subprocess.run(["bash", "-c", f'{line}\nprintf %s "$table"'], capture_output=True, text=True, check=True)
    assert shown.stdout == nasty


def test_it_holds_no_secret(script: str) -> None:
    secret = re.compile(
        r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|aws_secret_access_key\s*=\s*[A-Za-z0-9/+]{20,}|BEGIN [A-Z ]*KEY"
    )

    assert secret.findall(script) == []


def test_a_script_that_would_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / "resume.sh"
    long.write_text("#" * USER_DATA_MOST)
    monkeypatch.setattr(launchpad, "RESUME_SCRIPT", long)

    with pytest.raises(UserDataTooLong, match=r"Shorten resume\.sh"):
        user_data(FACTS)
