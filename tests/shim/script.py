"""The training of `tests.shim.training` as a program: leaves a JSON file behind when it comes to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
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
    if "killed_after_s" in arguments:
        threading.Timer(arguments["killed_after_s"], os.kill, (os.getpid(), signal.SIGKILL)).start()
    log = Path(arguments["out"] + ".steps")

    def after(run: Any, steps: int) -> None:
        with log.open("a") as lines:
            lines.write(f"{steps}\n")
        if steps == terminate_at:
            _shut_down(os.getpgrp())
        if pace_s:
            time.sleep(pace_s)

    outcome = train(trainer_shim.attach, build(workers=arguments.get("workers", 0)), arguments["total"], after)
    Path(arguments["out"]).write_text(json.dumps(asdict(outcome)))


def _shut_down(group: int) -> None:
    # As a machine does it: every process is told, by one that is nobody's parent.
    subprocess.run(["kill", "-TERM", "--", f"-{group}"], start_new_session=True, check=True)
