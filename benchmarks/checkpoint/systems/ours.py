"""The trainer shim, as a script uses it: `attach` and `run.step`, nothing else."""

from __future__ import annotations

import inspect
import json
import logging
import os
import time
from typing import Any

import trainer_shim
from benchmarks.checkpoint import occupied
from benchmarks.checkpoint.plane import Plane
from benchmarks.checkpoint.systems.system import BUCKET, NotHere, Place, System, objects
from benchmarks.checkpoint.workload import Training
from spotrelay.core.checkpoint import Checkpoint

LONGEST_S = 120.0  # for one save
LOOK_S = 0.01  # between looks at the table


class Ours(System):
    """Saves come by the run's cadence, so that the harness only goes on stepping."""

    def __init__(self, place: Place, lazy: bool = False) -> None:
        super().__init__(place)
        if lazy and "lazy" not in inspect.signature(trainer_shim.attach).parameters:
            raise NotHere("this version has no lazy snapshot")
        self._options = {"lazy": True} if lazy else {}
        self._steps = 0
        self._usual_s = 0.0
        self.restored_peak = 0  # bytes, when the checkpoint was in place and nothing for saving was begun
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
        self.run: Any = trainer_shim.attach(model=training.model, optimizer=training.optimizer, **self._options)

    def pass_by(self) -> None:
        self._step()

    def save(self) -> None:
        self.save_here()
        self._step()

    def save_here(self) -> None:
        """The next boundary is one with a save."""
        self.number += 1
        self._begun = time.monotonic()
        self._wanted = self._steps + 1

    def _step(self) -> None:
        self._steps += 1
        self.run.step(self.training.loss)

    def wait(self) -> None:
        """Look at the table until the commit is there; not before it can be, to leave the processors alone."""
        wanted = self._wanted
        time.sleep(max(0.0, self._begun + 0.7 * self._usual_s - time.monotonic()))
        while True:
            newest = next(iter(self.plane.checkpoints(self.run_id)), None)
            if newest is not None and newest.commit.step >= wanted:
                self._usual_s = time.monotonic() - self._begun
                return
            if time.monotonic() > self._begun + LONGEST_S:
                raise TimeoutError(f"step {wanted} is not committed after {LONGEST_S:.0f} s")
            time.sleep(LOOK_S)

    def verify(self) -> None:
        """What the control plane does after each commit; only then is an unchanged shard named again."""
        self.plane.hand_over(self.run_id, int(os.environ["SPOTRELAY_GENERATION"]))

    def end(self) -> None:
        self.run.close()

    def load(self, training: Training) -> None:
        logging.getLogger("trainer_shim").addFilter(self._look)
        self.begin(training)
        if self.run.resumed_from is None:
            raise ValueError("nothing was resumed")

    def _look(self, record: logging.LogRecord) -> bool:
        if "goes on at step" in record.getMessage():
            self.landed_at = time.monotonic()
            self.restored_peak = occupied.peak()
        return True

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
