"""Importing the shim starts nothing and costs next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROBE = """
import json, sys, threading, time
before = time.perf_counter()
import trainer_shim
took = time.perf_counter() - before
print(json.dumps({"took": took, "modules": sorted(sys.modules), "threads": threading.active_count()}))
"""


def probe() -> dict[str, object]:
    answer = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def test_it_brings_no_framework_and_no_aws_client() -> None:
    modules = probe()["modules"]

    assert isinstance(modules, list)
    assert not {"torch", "numpy", "boto3", "botocore", "xxhash", "jax", "transformers"} & set(modules)


def test_it_takes_less_than_sixty_milliseconds_and_starts_no_thread() -> None:
    found = [probe() for _ in range(3)]

    assert min(float(str(each["took"])) for each in found) < 0.06
    assert found[0]["threads"] == 1
