"""The example under a real torchrun: interrupted, resumed, and compared with its uninterrupted self."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spotrelay.core.live import EXIT_DRAINED, LEFT
from tests.shim.cluster import Cluster

ROOT = Path(__file__).parents[2]
RANKS = 3  # so that the order in which gradients are added up matters
STEPS = 24


def start(out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The example as its user starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={RANKS}", "--standalone"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPOTRELAY_")}
    return subprocess.Popen(
        [*command, str(ROOT / "examples" / "ddp_stdlib.py"), "--steps", str(STEPS), "--out", str(out)],
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def told(process: subprocess.Popen[str], until_step: int | None = None) -> tuple[dict[int, float], str]:
    """The losses that a process prints, up to a step or its end, and everything that it said meanwhile."""
    losses: dict[int, float] = {}
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("{") and "loss" in line:
            each = json.loads(line)
            losses[each["step"]] = each["loss"]
            if each["step"] == until_step:
                break
    return losses, "".join(said)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Losses and digest of the uninterrupted script."""
    out = tmp_path_factory.mktemp("expected")
    process = start(out, {})
    losses, said = told(process)
    assert process.wait(60) == 0, said
    assert losses[STEPS - 1] < losses[0] < 6.0
    return {"losses": losses, "digest": json.loads((out / "digest.json").read_text())["digest"]}


def test_ended_with_its_machine_it_drains_tells_the_agent_and_goes_on_bit_for_bit(
    cluster: Cluster, expected: dict[str, Any], tmp_path: Path
) -> None:
    cluster.scale = 0.5  # a save has to fit between SIGTERM and the end, on a busy machine too
    state = tmp_path / "1"
    first = start(tmp_path, {**cluster.environment(1), "SPOTRELAY_STATE": str(state)})
    losses, said = told(first, until_step=9)
    first.send_signal(signal.SIGTERM)
    rest, more = told(first)
    first.wait(60)
    drained_at = cluster.checkpoints[0].commit.step
    word = (state / LEFT).read_text().split()
    cluster.hand_over(2)

    second = start(tmp_path, {**cluster.environment(2), "SPOTRELAY_STATE": str(tmp_path / "2")})
    after, end = told(second)

    assert word == ["1", str(EXIT_DRAINED)], said + more
    assert drained_at >= 10, said + more
    assert second.wait(60) == 0, end
    assert min(after) == drained_at
    assert {**losses, **rest, **after} == expected["losses"]
    assert json.loads((tmp_path / "digest.json").read_text())["digest"] == expected["digest"]
