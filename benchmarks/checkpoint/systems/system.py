"""What the harness asks of a system that saves and restores."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.checkpoint.workload import Training

BUCKET = "bench"
REGION = "us-east-1"
CONNECTIONS = 8


class NotHere(Exception):
    """This version or machine cannot do it; the text says why."""


@dataclass(frozen=True)
class Place:
    """Where checkpoints go."""

    endpoint: str  # of S3
    prefix: str  # of every key
    folder: Path  # on the local disk

    def s3(self) -> Any:
        """A client for the harness and for systems that take one."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(max_pool_connections=32),
        )


class System:
    """One library. Synchronous unless it says otherwise; each save has a prefix of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.number = 0  # of the newest save
        self.durable_at = 0.0  # monotonic: when the newest save was durable; 0: when `wait` returns
        self.restored_peak = 0  # bytes that the process occupied at the most by `landed_at`; 0: by the call's return
        self.landed_at = 0.0  # monotonic: when a load was over that goes on to make ready for saving; 0: with the call

    def prepare(self) -> None:
        """Import what is needed; nothing of this is measured."""

    def begin(self, training: Training) -> None:
        """Get to know the training, once its state is whole."""
        self.training = training

    def pass_by(self) -> None:
        """Between two steps without a save."""

    def save(self) -> None:
        """Between two steps: save what there is now. Returns when training may go on."""
        raise NotImplementedError

    def held_back(self) -> None:
        """Wait until the state may change."""

    def wait(self) -> None:
        """Wait until the newest save is durable."""

    def end(self) -> None:
        """Nothing is saved any more."""

    def load(self, training: Training) -> None:
        """Put the newest save into a model and an optimizer that have made no step."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """Prefix of the newest save."""
        return f"{self.place.prefix}/{self.number:04d}"

    def forget_older(self) -> None:
        """Delete what the newest save does not need."""
        client = self.place.s3()
        for key in objects(client, f"{self.place.prefix}/"):
            if not key.startswith(self.key):
                client.delete_object(Bucket=BUCKET, Key=key)

    def find(self) -> None:
        """Make the newest save that is there the one to load."""
        keys = objects(self.place.s3(), f"{self.place.prefix}/")
        self.number = max(int(key.removeprefix(f"{self.place.prefix}/").split("/")[0]) for key in keys)

    def kinds(self) -> dict[str, str]:
        """An object of each kind that a save consists of, by a name for the kind."""
        sizes = objects(self.place.s3(), self.key)
        largest = max(sizes, key=lambda key: sizes[key])
        others = {Path(key).name: key for key in sizes if key != largest and "metadata" in key}
        return {"data": largest, **others}


class OnDisk(System):
    """A system that cannot write to S3."""

    @property
    def path(self) -> Path:
        """Folder of the newest save."""
        return self.place.folder / self.place.prefix.replace("/", "-") / f"{self.number:04d}"

    def forget_older(self) -> None:
        for folder in self.path.parent.iterdir():
            if folder != self.path:
                shutil.rmtree(folder)

    def find(self) -> None:
        self.number = max(int(folder.name) for folder in self.path.parent.iterdir())

    def kinds(self) -> dict[str, str]:
        files = [file for file in self.path.rglob("*") if file.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        others = {file.name: str(file) for file in files if "METADATA" in file.name.upper() and file != largest}
        return {"data": str(largest), **others}


def objects(client: Any, prefix: str) -> dict[str, int]:
    """Sizes of the objects under a prefix."""
    pages: Iterable[Any] = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}
