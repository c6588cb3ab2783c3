"""The cloud that a person starts to try the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.timeout(120)]


def test_a_shell_that_reads_the_file_is_logged_in_and_the_cloud_ends_with_its_input(tmp_path: Path) -> None:
    assembly_or_skip()
    command = [sys.executable, "-m", "spotrelay.localcloud", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdin is not None and cloud.stdout is not None
        said = _welcome(cloud.stdout)
        file = tmp_path / "home" / "environment"
        outside = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        status = f". {file} && exec {sys.executable} -m spotrelay.console.main status --json"
        listed = subprocess.run(["sh", "-c", status], env=outside, capture_output=True, text=True, check=False)
        cloud.stdin.write("i-0123456789abcdef0\n")
        cloud.stdin.flush()
        answer = cloud.stdout.readline()
        cloud.stdin.close()

        assert cloud.wait(30) == 0

    assert f". {file}" in said
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert "i-0123456789abcdef0" in answer and "notice" not in answer


def _welcome(out: IO[str]) -> str:
    lines = []
    for line in out:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    return "".join(lines)
