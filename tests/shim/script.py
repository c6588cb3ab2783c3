"""The training of `tests.shim.training` as a program: leaves a JSON file behind when it comes to its end."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trainer_shim
from tests.shim.training import build, train


def main(arguments: dict[str, Any]) -> None:
    """Train as the arguments say: workers, total, out, and what to do after a step."""
    pace_s = float(arguments.get("pace_s", 0.0))
    terminate_at = arguments.get("terminate_at")
    log = Path(arguments["out"] + ".steps")

    def after(run: Any, steps: int) -> None:
        with log.open("a") as lines:
            lines.write(f"{steps}\n")
        if steps == terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if pace_s:
            time.sleep(pace_s)

    outcome = train(trainer_shim.attach, build(workers=arguments.get("workers", 0)), arguments["total"], after)
    Path(arguments["out"]).write_text(json.dumps(asdict(outcome)))
