"""From an interruption warning to the launch call, and what a bare function would need for the call alone.

The deployed bundle runs under AWS's runtime client against the embedded cloud. Each warning is for
a run of its own, which trains on a machine; the time ends when the CreateFleet request arrives at
EC2, by the cloud's own request log. The bare function imports boto3 and calls CreateFleet, nothing
else: no parsing, no record, no claim. Both are warm, and take turns.

Usage: python -m benchmarks.event_to_launch [--events N]
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handlers.settings import EVENT_TO_LAUNCH, PLACES
from infra.assets import Target, lambda_bundle
from infra.host import host_architecture, host_python
from spotrelay.core.placement import Pool
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.localcloud.client import LocalCloud
from tests.handlers.emulated import SPEC, Stack, make_stack
from tests.handlers.lambda_python import bare_python, managed_runtime
from tests.handlers.plane import batch, warning
from tests.handlers.runtime_api import Function

BARE = """
import boto3
ec2 = boto3.client("ec2")

def handler(event, context):
    answer = ec2.create_fleet(**event)
    return {"instances": [i for group in answer["Instances"] for i in group["InstanceIds"]]}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, LocalCloud(Path(scratch) / "cloud") as cloud:
        access = cloud.environment()
        os.environ.update(access)
        task = lambda_bundle(Target(host_architecture(), host_python())).tree
        stack = make_stack(access, task, managed_runtime(Path(scratch) / "runtime"))
        bare_task = Path(scratch) / "bare"
        bare_task.mkdir()
        (bare_task / "bare.py").write_text(BARE)
        with (
            Function(bare_python(), task, "handlers.interruptions.handler", stack.environment) as ours,
            Function(bare_python(), bare_task, "bare.handler", stack.environment) as bare,
        ):
            measured = _measure(arguments.events, stack, ours, bare, cloud)
            measured["inside_ms"] = [line[EVENT_TO_LAUNCH][0] for line in ours.lines() if EVENT_TO_LAUNCH in line][1:]
    result: dict[str, Any] = {name: _quantiles(values) for name, values in measured.items()}
    result["ratio_to_bare"] = {
        q: round(result["to_ec2_ms"][q] / result["bare_to_ec2_ms"][q], 2) for q in ("p50", "p95")
    }
    print(json.dumps({"events": len(measured["to_ec2_ms"]), **result}))
    sys.exit(0 if len(measured["inside_ms"]) >= arguments.events else 1)


def _measure(events: int, stack: Stack, ours: Function, bare: Function, cloud: LocalCloud) -> dict[str, list[float]]:
    """Milliseconds from handing out the event to the request's arrival; the first of each is not counted."""
    found: dict[str, list[float]] = {"to_ec2_ms": [], "bare_to_ec2_ms": []}
    for number in range(events + 1):
        machine = training(stack, f"run-{number}")
        sent = time.time()
        answer = ours.invoke(batch(warning(machine)))
        if answer["batchItemFailures"]:
            sys.exit(f"the function failed:\n{ours.output[-3000:]}")
        found["to_ec2_ms"].append(1000 * (_last_launch(cloud) - sent))
        sent = time.time()
        launched = bare.invoke(_request(stack, number))
        found["bare_to_ec2_ms"].append(1000 * (_last_launch(cloud) - sent))
        attempt = stack.store.load(f"run-{number}").current
        assert attempt is not None and attempt.instance_id is not None
        stack.clients.client("ec2").terminate_instances(InstanceIds=[attempt.instance_id, *launched["instances"]])
        if number % 20 == 0:
            print(f"{number} of {events}", flush=True)
    return {name: values[1:] for name, values in found.items()}


def training(stack: Stack, run_id: str) -> str:
    """A run that trains on a machine which only its row knows; returns the machine."""
    now, machine = datetime.now(UTC), f"i-{secrets.token_hex(8)}0"
    pool = Pool("us-east-1", "us-east-1a", "g5.xlarge")
    stack.store.create(Run(run_id, SPEC, now))
    before = stack.store.load(run_id)
    attempt = Attempt(1, AttemptState.RUNNING, machine, pool, 1.0, now, now, now, now, now)
    stack.store.save(before, replace(before, attempts=(attempt,), launches=1, status=RunStatus.RUNNING))
    stack.live.take_lease(run_id, 1, machine)
    return machine


def _request(stack: Stack, number: int) -> dict[str, Any]:
    ((_, place),) = json.loads(stack.environment[PLACES]).items()
    template = {"LaunchTemplateId": place["launch_template"], "Version": place["version"]}
    overrides = [{"InstanceType": "g5.xlarge", "SubnetId": subnet} for subnet in place["subnets"].values()]
    return {
        "Type": "instant",
        "ClientToken": f"bare.{number}",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}],
    }


def _last_launch(cloud: LocalCloud) -> float:
    return max(float(entry["at"]) for entry in cloud.requests() if entry["action"] == "CreateFleet")


def _quantiles(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {name: round(ranked[int(len(ranked) * part)], 1) for name, part in (("p50", 0.5), ("p95", 0.95))}


if __name__ == "__main__":
    main()
