"""Each example: its process is killed without a word, and the next one ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster
from tests.shim.world import eventually

ROOT = Path(__file__).parents[2]
STEPS = 12
SCRIPTS = ["trainer_stdlib.py", "lora_stdlib.py", "jax_stdlib.py"]


def without_torch(folder: Path) -> str:
    """A folder in which an import of torch finds something that fails."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('no torch for this test')\n")
    return str(folder)


def begin(script: str, out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """The script as a process of its own, with a group of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPOTRELAY_")}
    blocked = without_torch(out.with_suffix(".blocked")) + ":" if script.startswith("jax") else ""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / script), "--steps", str(STEPS), "--out", str(out)],
        env={**clean, "PYTHONPATH": f"{blocked}{ROOT}", "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str], out: Path) -> Any:
    """What a script leaves behind that is let come to its end."""
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    return json.loads((out / "digest.json").read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_and_resumed_it_leaves_the_digest_of_an_uninterrupted_run(
    cluster: Cluster, tmp_path: Path, script: str
) -> None:
    cluster.change(Cadence(every_steps=3))
    alone = begin(script, tmp_path / "alone", {})

    victim = begin(script, tmp_path / "first", cluster.environment(1))
    eventually(lambda: cluster.checkpoints or victim.poll() is not None, "a checkpoint was committed", 120)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    cluster.hand_over(2)
    begun = max(c.commit.step for c in cluster.checkpoints)
    outcome = finished(begin(script, tmp_path / "second", cluster.environment(2)), tmp_path / "second")
    expected = finished(alone, tmp_path / "alone")

    assert victim.returncode == -signal.SIGKILL
    assert 0 < begun < STEPS
    assert outcome["digest"] == expected["digest"]
