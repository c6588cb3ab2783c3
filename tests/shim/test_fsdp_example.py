"""The FSDP example under torchrun: killed without a word, its next attempt ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from spotrelay.core.spec import Cadence
from tests.instance.cloud import Cloud
from tests.shim.cluster import Cluster
from tests.shim.world import eventually

ROOT = Path(__file__).parents[2]
STEPS = 16
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def begin(out: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Two ranks, in a process group of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPOTRELAY_")}
    script = str(ROOT / "examples" / "fsdp_stdlib.py")
    return subprocess.Popen(
        [*TORCHRUN, script, "--steps", str(STEPS), "--out", str(out)],
        env={**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str], out: Path) -> Any:
    """What the script leaves behind when it is let come to its end."""
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    return json.loads((out / "digest.json").read_text())


def kill_all(torchrun: subprocess.Popen[str]) -> None:
    """As the power does it. The ranks are no members of torchrun's group, and would outlive it."""
    ranks = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    for pid in (*map(int, ranks), torchrun.pid):
        os.kill(pid, signal.SIGKILL)
    torchrun.communicate()


def test_killed_and_resumed_it_leaves_the_digest_of_an_uninterrupted_run(emulator: Cloud, tmp_path: Path) -> None:
    cluster = Cluster(emulator, None)  # type: ignore[arg-type]  # no single processes here
    cluster.submit(Cadence(every_steps=4))
    expected = finished(begin(tmp_path / "alone", {}), tmp_path / "alone")

    victim = begin(tmp_path / "first", cluster.environment(1))
    eventually(lambda: cluster.checkpoints or victim.poll() is not None, "a checkpoint was committed", 120)
    kill_all(victim)
    cluster.hand_over(2)
    begun = max(c.commit.step for c in cluster.checkpoints)
    outcome = finished(begin(tmp_path / "second", cluster.environment(2)), tmp_path / "second")

    assert 0 < begun < STEPS
    assert outcome["digest"] == expected["digest"]
    assert outcome["resumed_from"] == begun
