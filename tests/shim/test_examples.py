"""Each example: its process is killed without a word, and the next one ends in the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster
from tests.shim.examples import DYING, STEPS, begin, ended, killed, without_torch

SCRIPTS = ["trainer_stdlib.py", "lora_stdlib.py", "jax_stdlib.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_killed_and_resumed_it_leaves_the_digest_of_an_uninterrupted_run(
    cluster: Cluster, tmp_path: Path, script: str
) -> None:
    cluster.change(Cadence(every_steps=3))
    blocked = [without_torch(tmp_path / "blocked")] if script.startswith("jax") else []
    alone = begin(script, tmp_path / "alone", {}, *blocked)

    killed(begin(script, tmp_path / "first", cluster.environment(1), DYING, *blocked))
    cluster.hand_over(2)
    (begun,) = (c.commit.step for c in cluster.checkpoints)
    ended(begin(script, tmp_path / "second", cluster.environment(2), *blocked))
    ended(alone)

    expected, outcome = (json.loads((tmp_path / name / "digest.json").read_text()) for name in ("alone", "second"))
    assert 0 < begun < STEPS
    assert outcome["digest"] == expected["digest"]


@pytest.mark.long
def test_the_trainer_under_torchrun_leaves_the_digest_of_an_uninterrupted_run(cluster: Cluster, tmp_path: Path) -> None:
    script = "trainer_stdlib.py"
    cluster.change(Cadence(every_steps=3))
    alone = begin(script, tmp_path / "alone", {}, ranks=2)

    first = begin(script, tmp_path / "first", cluster.environment(1), DYING, ranks=2)
    first.communicate(timeout=200)
    cluster.hand_over(2)
    (begun,) = (c.commit.step for c in cluster.checkpoints)
    ended(begin(script, tmp_path / "second", cluster.environment(2), ranks=2))
    ended(alone)

    expected, outcome = (json.loads((tmp_path / name / "digest.json").read_text()) for name in ("alone", "second"))
    assert first.returncode != 0
    assert 0 < begun < STEPS
    assert outcome == expected
