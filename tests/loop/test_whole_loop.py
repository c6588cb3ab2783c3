"""The whole loop for real: stack, Lambdas, machines, training, five reclaims, verdict - shorter than the demo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spotrelay.console.demo.processes import living_in
from tests.localcloud.kit import assembly_or_skip

pytestmark = [pytest.mark.loop, pytest.mark.timeout(600), pytest.mark.xdist_group("whole-loop")]


@pytest.fixture(autouse=True)
def assembly() -> None:
    assembly_or_skip()


@contextmanager
def demo(home: Path, scratch: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A demo under way, in a temporary folder of its own; never outlives the block."""
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "spotrelay.console.main", "demo", "--home", str(home), "--fast", "--json", *options],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background lets its children ignore it, and theirs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def said_until(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if wanted(lines[-1]):
            return lines
    raise AssertionError(f"the demo ended before; it said last: {lines[-3:]}")


def endpoint_in(lines: list[dict[str, Any]]) -> tuple[str, int]:
    text = next(line["text"] for line in lines if "http://" in line.get("text", ""))
    host, port = text.split("http://")[1].split(";")[0].split(":")
    return host, int(port)


def gone_within(seconds: float, home: Path) -> dict[int, str]:
    deadline = time.monotonic() + seconds
    while (left := living_in(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_five_reclaims_leave_the_weights_of_an_uninterrupted_run(tmp_path: Path) -> None:
    home, scratch = tmp_path / "demo", tmp_path / "scratch"

    with demo(home, scratch) as process:
        out, err = process.communicate(timeout=560)

    lines = [json.loads(line) for line in out.splitlines()]
    result = lines[-1]
    assert process.returncode == 0, [line for line in lines if line.get("problems")] or err
    assert (result["reclaims_survived"], result["reclaims"], result["digests_equal"]) == (5, 5, True)
    assert result["failed"] == []
    assert (home / "loss.png").stat().st_size > 10_000
    assert json.loads((home / "verdict.json").read_text())["verdict"] == "passed"
    assert list(scratch.iterdir()) == []
    assert living_in(home) == {}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp_path: Path, signum: signal.Signals) -> None:
    home, scratch = tmp_path / "demo", tmp_path / "scratch"

    with demo(home, scratch) as process:
        lines = said_until(process, lambda line: line.get("entry", {}).get("kind") == "first-step")
        while_running = living_in(home)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)

    assert while_running
    assert process.returncode == 128 + signum
    assert "nothing is left running" in err
    assert living_in(home) == {}
    assert list(scratch.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path not in (home, scratch)] == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(endpoint_in(lines), timeout=2)


def test_a_demo_that_is_killed_outright_leaves_no_process(tmp_path: Path) -> None:
    home, scratch = tmp_path / "demo", tmp_path / "scratch"

    with demo(home, scratch) as process:
        said_until(process, lambda line: line.get("entry", {}).get("kind") == "alive")
        process.kill()
        process.communicate(timeout=60)

    assert gone_within(20, home) == {}
