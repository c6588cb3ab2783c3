"""The trainer shim, as a script uses it: `attach` and `run.step`, nothing else."""

from __future__ import annotations

import inspect
import json
import logging
import os
import time
from queue import SimpleQueue
from typing import Any

import trainer_shim
from benchmarks.checkpoint import occupied
from benchmarks.checkpoint.plane import Plane
from benchmarks.checkpoint.systems.system import BUCKET, NotHere, Place, System, objects
from benchmarks.checkpoint.workload import Training
from spotrelay.core.checkpoint import Checkpoint
from trainer_shim.saving import COMMITTED
from trainer_shim.voice import logger

LONGEST_S = 120.0  # for one save


class Heard(logging.Handler):
    """Notes when the shim says what the harness waits for. Whoever else logs is not disturbed."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: SimpleQueue[float] = SimpleQueue()  # monotonic
        self.landed_at = 0.0  # monotonic: when a restored state was in its place
        self.landed_peak = 0  # bytes that the process occupied at the most by then

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if record.msg == COMMITTED:
            self.commits.put(time.monotonic())
        elif "goes on at step" in record.getMessage():
            self.landed_at, self.landed_peak = time.monotonic(), occupied.peak()


class Ours(System):
    """Saves come by the run's cadence, so that the harness only goes on stepping."""

    def __init__(self, place: Place, lazy: bool = False) -> None:
        super().__init__(place)
        if lazy and "lazy" not in inspect.signature(trainer_shim.attach).parameters:
            raise NotHere("this version has no lazy snapshot")
        self._options = {"lazy": True} if lazy else {}
        self._steps = 0
        self._heard = Heard()
        self.plane = Plane(**json.loads(os.environ["BENCH_PLANE"]))
        self.run_id = os.environ["SPOTRELAY_RUN"]

    def prepare(self) -> None:
        import boto3
        import numpy  # noqa: F401 - part of the shim's own needs

        import trainer_shim.attaching
        import trainer_shim.frameworks.torch  # noqa: F401

        for service in ("s3", "dynamodb", "events"):
            boto3.client(service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")

    def begin(self, training: Training) -> None:
        super().begin(training)
        logger.addHandler(self._heard)
        logger.setLevel(logging.DEBUG)
        self.run: Any = trainer_shim.attach(model=training.model, optimizer=training.optimizer, **self._options)

    def pass_by(self) -> None:
        self._step()

    def save(self) -> None:
        self.save_here()
        self._step()

    def save_here(self) -> None:
        """The next boundary is one with a save."""
        self.number += 1
        self._wanted = self._steps + 1

    def _step(self) -> None:
        self._steps += 1
        self.run.step(self.training.loss)

    def wait(self) -> None:
        """Listen for the commit's reply, as others wait for their futures; and see that the table has it."""
        self.durable_at = self._heard.commits.get(timeout=LONGEST_S)
        step = self.newest().commit.step
        if step != self._wanted:
            raise ValueError(f"step {self._wanted} was to be committed, and the table has {step}")

    def verify(self) -> None:
        """What the control plane does after each commit; only then is an unchanged shard named again."""
        self.plane.hand_over(self.run_id, int(os.environ["SPOTRELAY_GENERATION"]))

    def end(self) -> None:
        self.run.close()

    def load(self, training: Training) -> None:
        self.begin(training)
        if self.run.resumed_from is None:
            raise ValueError("nothing was resumed")
        self.landed_at, self.restored_peak = self._heard.landed_at, self._heard.landed_peak

    def forget_older(self) -> None:
        """What the control plane would collect: everything that the newest checkpoint does not name."""
        newest = self.plane.checkpoints(self.run_id)[0]
        named = {shard.key for shard in self.plane.manifest(newest).shards}
        client = self.place.s3()
        for key in objects(client, f"runs/{self.run_id}/shards/"):
            if key not in named:
                client.delete_object(Bucket=BUCKET, Key=key)

    def find(self) -> None:
        """The shim finds it itself."""

    def kinds(self) -> dict[str, str]:
        newest = self.plane.checkpoints(self.run_id)[0]
        manifest = self.plane.manifest(newest)
        arrays = manifest.tree["arrays"]
        found = {"manifest": newest.commit.manifest_key}
        for kind, start in {"a model's shard": "models/", "an optimizer's shard": "others/"}.items():
            largest = max((name for name in arrays if name.startswith(start)), key=lambda name: _width(arrays[name]))
            found[kind] = manifest.shards[arrays[largest]["at"][0][0]].key
        return found

    def newest(self) -> Checkpoint:
        """The newest commit."""
        return self.plane.checkpoints(self.run_id)[0]


def _width(described: Any) -> int:
    size = 1
    for length in described["shape"]:
        size *= length
    return size
