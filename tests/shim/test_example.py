"""The demo's script by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_trains_on_real_text_and_leaves_a_digest(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "gpt_stdlib.py"), "--steps", "3", "--out", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPOTRELAY_")}

    answer = subprocess.run(
        command, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True
    )

    *steps, result = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line["step"] for line in steps] == [0, 1, 2]
    assert all(4.0 < line["loss"] < 7.0 for line in steps)  # about ln 256 before anything is learned
    assert json.loads((tmp_path / "digest.json").read_text()) == result
    assert len(result["digest"]) == 64
