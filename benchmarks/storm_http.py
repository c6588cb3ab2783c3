"""A reclaim storm over HTTP: the deployed bundle, in several processes, against the embedded cloud.

Every run's machine gets its notice at once, each event twice and in any order; EC2 refuses the
first launches for their rate. Machines are real processes with an empty start script. In the end
EC2 must show exactly one machine for each run, all of them recorded, and the sweep end none.

Usage: python -m benchmarks.storm_http [--runs N]
The last line is one JSON object; the exit status is 1 if a count is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.event_to_launch import training
from handlers.settings import RUNS_QUEUE, TIME_SCALE
from infra.assets import Target, lambda_bundle
from infra.host import host_architecture, host_python
from spotrelay.core.run import Run
from spotrelay.localcloud.client import LocalCloud
from tests.handlers.emulated import Stack, make_stack
from tests.handlers.lambda_python import bare_python, managed_runtime
from tests.handlers.plane import batch, warning
from tests.handlers.runtime_api import Function

TOGETHER = 5  # records in one invocation, as the stack has it
SCALE = 0.1  # of every waiting time
SWEEP_S = 60 * SCALE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--throttled", type=int, default=100, help="launches that EC2 refuses for their rate")
    parser.add_argument("--functions", type=int, default=4, help="processes that answer EC2's events")
    parser.add_argument("--longest", type=float, default=420.0, help="seconds after which it is given up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, LocalCloud(Path(scratch) / "cloud") as cloud, ExitStack() as all_:
        access = cloud.environment()
        os.environ.update(access)
        task = lambda_bundle(Target(host_architecture(), host_python())).tree
        stack = make_stack(access, task, managed_runtime(Path(scratch) / "runtime"))
        stack.environment[TIME_SCALE] = str(SCALE)

        def function(name: str) -> Function:
            return all_.enter_context(Function(bare_python(), task, f"handlers.{name}.handler", stack.environment))

        machines = {f"run-{number}": training(stack, f"run-{number}") for number in range(arguments.runs)}
        cloud.refuse({}, "RequestLimitExceeded", form="exception", times=arguments.throttled)
        storm = Storm(stack, machines)
        before = len(cloud.requests())
        started = time.monotonic()
        storm.run(
            [function("interruptions") for _ in range(arguments.functions)],
            function("runs"),
            function("sweep"),
            started + arguments.longest,
        )
        result = storm.result(cloud, before, time.monotonic() - started)
    print(json.dumps(result))
    exact = all(result[name] == arguments.runs for name in ("machines_running", "runs_with_one_replacement"))
    sys.exit(0 if exact and not result["orphans"] else 1)


class Storm:
    """Threads that feed the functions, until every run has its replacement."""

    def __init__(self, stack: Stack, machines: dict[str, str]) -> None:
        self._stack = stack
        self._run_ids = list(machines)
        self._events: queue.Queue[list[dict[str, Any]]] = queue.Queue()
        self._over = threading.Event()
        self._failed: list[str] = []
        events = [warning(machine) for machine in machines.values() for _ in range(2)]
        random.Random(7).shuffle(events)
        for at in range(0, len(events), TOGETHER):
            self._events.put(events[at : at + TOGETHER])

    def run(self, interruptions: list[Function], runs: Function, sweep: Function, until: float) -> None:
        """Feed everything; returns when all runs are replaced or the time is up."""
        workers = [self._thread(self._answer_events, function) for function in interruptions]
        workers += [self._thread(self._answer_due, runs), self._thread(self._sweep, sweep)]
        waiting = set(self._run_ids)
        while waiting and time.monotonic() < until and not self._failed:
            waiting = {run_id for run_id in waiting if not _replaced(self._stack.store.load(run_id))}
            time.sleep(0.5)
        self._over.set()
        for worker in workers:
            worker.join(timeout=90)
        if self._failed:
            sys.exit(f"a function failed: {self._failed[0]}")
        print(f"{len(waiting)} runs are without a replacement", flush=True)
        sweep.invoke({})

    def result(self, cloud: LocalCloud, before: int, wall_s: float) -> dict[str, Any]:
        """What came of it, by the cloud's own records."""
        requests = cloud.requests()[before:]
        calls = Counter(f"{entry['service']}:{entry['action']}" for entry in requests)
        loaded = [self._stack.store.load(run_id) for run_id in self._run_ids]
        owned = {attempt.instance_id for run in loaded for attempt in run.attempts}
        shown = [i["InstanceId"] for i in cloud.instances() if i["State"]["Name"] in ("pending", "running")]
        return {
            "runs": len(loaded),
            "machines_running": len(shown),
            "runs_with_one_replacement": sum(_replaced(run) and len(run.attempts) == 2 for run in loaded),
            "orphans": sum(machine not in owned for machine in shown),
            "launch_calls": calls["ec2:CreateFleet"],
            "launch_calls_throttled": sum(e["error"] == "RequestLimitExceeded" for e in requests),
            "requests": len(requests),
            "wall_s": round(wall_s, 1),
        }

    def _thread(self, loop: Callable[[Function], None], function: Function) -> threading.Thread:
        def guarded() -> None:
            try:
                loop(function)
            except Exception as error:  # noqa: BLE001 - told by the main thread, which ends the benchmark
                self._failed.append(f"{error!r}\n{function.output[-3000:]}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _answer_events(self, function: Function) -> None:
        while not self._over.is_set():
            try:
                events = self._events.get(timeout=0.5)
            except queue.Empty:
                continue
            failures = function.invoke(batch(*events))["batchItemFailures"]
            if failures:
                self._events.put([events[int(f["itemIdentifier"].removeprefix("m-"))] for f in failures])

    def _answer_due(self, function: Function) -> None:
        sqs, url = self._stack.clients.client("sqs"), self._stack.environment[RUNS_QUEUE]
        while not self._over.is_set():
            found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=TOGETHER, WaitTimeSeconds=1)
            messages = found.get("Messages", [])
            if not messages:
                continue
            answer = function.invoke(batch(*[message["Body"] for message in messages]))
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            for number, message in enumerate(messages):
                if f"m-{number}" not in failed:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _sweep(self, function: Function) -> None:
        while not self._over.wait(SWEEP_S):
            function.invoke({})


def _replaced(run: Run) -> bool:
    current = run.current
    return current is not None and current.generation == 2 and current.instance_id is not None and run.intent is None


if __name__ == "__main__":
    main()
