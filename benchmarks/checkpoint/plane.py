"""The control plane's part for a run of ours, played by hand: its table, its row, its verdicts."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3

from benchmarks.checkpoint.systems.system import BUCKET, REGION
from spotrelay.aws.layout import table_definition
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.checkpoint import Checkpoint, Verdict, decode_manifest
from spotrelay.core.run import Run
from spotrelay.core.spec import Cadence, Spec

BUS = "bench"
START_S = 60.0


@dataclass(frozen=True)
class Plane:
    """A table in the emulator, and a bucket in the sink."""

    emulator: str  # endpoint of everything but S3
    sink: str  # endpoint of S3
    table: str

    def submit(self, every_steps: int) -> str:
        """A new run; its id."""
        run_id = f"bench-{secrets.token_hex(4)}"
        spec = Spec(("python", "train.py"), ("g5.xlarge",), cadence=Cadence(every_steps=every_steps))
        self._runs.create(Run(run_id, spec, datetime.now(UTC)))
        return run_id

    def environment(self, run_id: str, generation: int) -> dict[str, str]:
        """What the agent would give to the program."""
        return {
            "SPOTRELAY_RUN": run_id,
            "SPOTRELAY_GENERATION": str(generation),
            "SPOTRELAY_INSTANCE": f"i-{generation:08x}",
            "SPOTRELAY_TABLE": self.table,
            "SPOTRELAY_BUCKET": BUCKET,
            "SPOTRELAY_BUS": BUS,
            "SPOTRELAY_HOME_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.emulator,
            "AWS_ENDPOINT_URL_S3": self.sink,
        }

    def hand_over(self, run_id: str, floor: int) -> None:
        """Compare every new checkpoint with S3, and fence every attempt below `floor`."""
        for checkpoint in self.checkpoints(run_id):
            if checkpoint.pending:
                where = checkpoint.id
                verdict = Verdict(where.generation, where.save, self._whole(checkpoint), checked_at=datetime.now(UTC))
                self._runs.record_verdict(run_id, verdict)
        self._runs.fence(run_id, floor)

    def checkpoints(self, run_id: str) -> tuple[Checkpoint, ...]:
        """Newest first."""
        return DynamoLiveStore(_client("dynamodb", self.emulator), self.table).checkpoints(run_id)

    def manifest(self, checkpoint: Checkpoint) -> Any:
        """What a checkpoint consists of."""
        return decode_manifest(self._objects.get(checkpoint.commit.manifest_key, checkpoint.commit.manifest_version))

    def _whole(self, checkpoint: Checkpoint) -> bool:
        manifest = self.manifest(checkpoint)
        there = {(o.key, o.version_id): o.size for o in self._objects.list_versions(f"runs/{manifest.run_id}/shards/")}
        return all(there.get((shard.key, shard.version_id)) == shard.size for shard in manifest.shards)

    @property
    def _runs(self) -> DynamoRunStore:
        return DynamoRunStore(_client("dynamodb", self.emulator), self.table)

    @property
    def _objects(self) -> S3ObjectStore:
        return S3ObjectStore(_client("s3", self.sink), BUCKET)


@contextmanager
def plane(sink: str, folder: Path) -> Iterator[Plane]:
    """MiniStack as a process of its own, on loopback only, with a table and a bus."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": port,
        "MINISTACK_HOST": "127.0.0.1",
        "TMPDIR": str(folder),
        "LOG_LEVEL": "WARNING",
    }
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _await(endpoint, process)
        table = f"bench-{secrets.token_hex(4)}"
        _client("dynamodb", endpoint).create_table(**table_definition(table))
        _client("events", endpoint).create_event_bus(Name=BUS)
        yield Plane(endpoint, sink, table)
    finally:
        process.kill()
        process.wait()


def _await(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("MiniStack does not start: install the demo extra")


@cache
def _client(service: str, endpoint: str) -> Any:
    """Made once: it takes longer than the request it is for, and on the cores that are measured."""
    make: Any = boto3.client  # untyped: the service is a variable here
    return make(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
