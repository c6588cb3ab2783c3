"""What a cold start of each function costs, as a ratio to a bare Python and to boto3 with a client.

Counts executed instructions under valgrind, which repeat from run to run; wall times are printed
beside them and do not. Usage: python -m benchmarks.cold_start [--wall-only] [--starts N]
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from handlers import settings
from infra.assets import MODELS, Target, lambda_bundle
from infra.host import host_architecture, host_python
from tests.handlers.lambda_python import bare_python, managed_runtime

PLACES = {"eu-west-1": {"launch_template": "lt-1", "version": "1", "subnets": {"eu-west-1a": "subnet-1"}}}
ENVIRONMENT = {
    settings.TABLE: "table",
    settings.BUCKET: "bucket",
    settings.BUS: "bus",
    settings.STACK: "Spotrelay",
    settings.HOME_REGION: "eu-west-1",
    settings.PLACES: json.dumps(PLACES),
    settings.SWITCH: "/spotrelay/launches",
}
BOTO3 = "import boto3; boto3.client('{}', region_name='eu-west-1')"
WIRED = "import handlers.{0}; from handlers.wiring import wired; wired()"
LAUNCHING = WIRED + ".plane; from spotrelay.aws.clients import Clients; Clients('eu-west-1').launcher('eu-west-1')"
PROGRAMS = {
    "python": "pass",
    "boto3 + dynamodb client": BOTO3.format("dynamodb"),
    "boto3 + ec2 client": BOTO3.format("ec2"),
    "interruptions": WIRED.format("interruptions"),
    "interruptions, launching": LAUNCHING.format("interruptions"),
    "runs": WIRED.format("runs"),
    "sweep": WIRED.format("sweep"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wall-only", action="store_true", help="no instruction counts")
    parser.add_argument("--starts", type=int, default=5, help="starts of which the fastest counts as the wall time")
    arguments = parser.parse_args()
    counting = not arguments.wall_only and shutil.which("valgrind") is not None
    bundle = lambda_bundle(Target(host_architecture(), host_python()))
    with tempfile.TemporaryDirectory() as scratch:
        environment = _environment(bundle.tree, managed_runtime(Path(scratch) / "runtime"))
        measured = {
            name: _measure(program, environment, bundle.tree, arguments.starts, counting)
            for name, program in PROGRAMS.items()
        }
    for name, row in measured.items():
        print(f"{name:28} {row['wall_ms']:8.0f} ms {row.get('million_instructions', 0):10.0f} million instructions")
    print(json.dumps({"compiled": bundle.compiled, "counted": counting, "cold_start": _ratios(measured, counting)}))


def _environment(bundle: Path, runtime: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{bundle}{os.pathsep}{runtime}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
        **ENVIRONMENT,
    }


def _measure(program: str, environment: dict[str, str], root: Path, starts: int, counting: bool) -> dict[str, float]:
    ours = "handlers" in program
    env = environment | ({"AWS_DATA_PATH": str(root / MODELS)} if ours else {})
    command = [*bare_python(), "-c", program]
    row = {"wall_ms": 1000 * min(_timed(command, env, root) for _ in range(starts))}
    if counting:
        row["million_instructions"] = _instructions(command, env, root) / 1e6
    return row


def _timed(command: list[str], env: dict[str, str], root: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=env, cwd=root, check=True)
    return time.perf_counter() - started


def _instructions(command: list[str], env: dict[str, str], root: Path) -> int:
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=2"]
    done = subprocess.run([*valgrind, *command], env=env, cwd=root, check=True, capture_output=True, text=True)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if found is None:
        sys.exit(f"valgrind printed no count:\n{done.stderr[-2000:]}")
    return int(found.group(1))


def _ratios(measured: dict[str, dict[str, float]], counting: bool) -> dict[str, dict[str, float]]:
    unit = "million_instructions" if counting else "wall_ms"
    bare, client = measured["python"][unit], measured["boto3 + dynamodb client"][unit]
    return {
        name: {**{k: round(v, 1) for k, v in row.items()},
               "to_bare_python": round(row[unit] / bare, 2),
               "to_boto3_with_client": round(row[unit] / client, 2)}
        for name, row in measured.items()
    }  # fmt: skip


if __name__ == "__main__":
    main()
