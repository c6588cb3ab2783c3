"""Training processes against the emulated S3, DynamoDB and EventBridge, with the real adapters between."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.checkpoint import Checkpoint, Manifest, Verdict, decode_manifest
from spotrelay.core.spec import Cadence, HealthRules
from tests.instance.cloud import BUCKET, BUS, TABLE, Cloud
from tests.shim.world import SCALE, new_run

ROOT = Path(__file__).parents[2]


@dataclass
class Ended:
    """How a process ended."""

    status: int  # negative: by that signal
    said: str  # on stdout and stderr
    outcome: dict[str, Any] | None  # what it left behind, if it came to its end
    steps: int  # the last one that it finished


class Nursery:
    """The process that forks training processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.shim.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(
        self,
        environment: dict[str, str],
        arguments: dict[str, Any],
        fault: dict[str, Any] | None = None,
        ranks: int = 0,
    ) -> Ended:
        """One process from its start to its end; or so many ranks, and a fault for each that has one, by its number."""
        name = secrets.token_hex(4)
        out = self.folder / f"{name}.json"
        request = {
            "environment": environment,
            "arguments": {**arguments, "out": str(out)},
            "fault": fault,
            "ranks": ranks,
            "errors": str(self.folder / f"{name}.log"),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        steps = Path(f"{out}.steps")
        done = int(steps.read_text().split()[-1]) if steps.exists() else 0
        outcome = json.loads(out.read_text()) if out.exists() else None
        return Ended(answer["status"], answer["said"], outcome, done)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@dataclass
class Cluster:
    """One run in the emulated cloud, and the control plane's part played by hand."""

    cloud: Cloud
    nursery: Nursery
    total: int = 12
    run_id: str = field(default_factory=lambda: f"run-{secrets.token_hex(5)}")
    metadata: str = ""
    scale: float = SCALE  # of every waiting time

    def __post_init__(self) -> None:
        self.runs = DynamoRunStore(self.cloud.client("dynamodb"), TABLE)
        self.live = DynamoLiveStore(self.cloud.client("dynamodb"), TABLE)
        self.objects = S3ObjectStore(self.cloud.client("s3"), BUCKET)

    def submit(self, cadence: Cadence | None = None) -> None:
        """Create the run."""
        self.runs.create(replace(new_run(cadence or Cadence(every_steps=4)), run_id=self.run_id))

    def change(self, cadence: Cadence, health: HealthRules | None = None) -> None:
        """Give the run another cadence, and perhaps other rules of health."""
        before = self.runs.load(self.run_id)
        spec = replace(before.spec, cadence=cadence, health=health or before.spec.health)
        self.runs.save(before, replace(before, spec=spec))

    def attempt(self, generation: int, fault: dict[str, Any] | None = None, **arguments: Any) -> Ended:
        """One attempt on its machine, until it ends or is killed."""
        return self.nursery.run(self.environment(generation), {"total": self.total, **arguments}, fault)

    def together(self, generation: int, ranks: int, faults: dict[int, Any] | None = None, **arguments: Any) -> Ended:
        """One attempt of several ranks on its machine, until it ends or is killed."""
        by_name = {str(rank): fault for rank, fault in (faults or {}).items()}
        environment = {**self.environment(generation), "SPOTRELAY_STATE": str(self.state(generation))}
        return self.nursery.run(environment, {"total": self.total, **arguments}, by_name, ranks)

    def state(self, generation: int) -> Path:
        """Where this attempt's agent looks for word of it."""
        return self.nursery.folder / self.run_id / f"{generation}"

    def environment(self, generation: int) -> dict[str, str]:
        """What the agent would give to the program."""
        metadata = (
            {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata, "AWS_EC2_METADATA_DISABLED": "false"}
            if self.metadata
            else {"AWS_EC2_METADATA_DISABLED": "true"}
        )
        return {
            "SPOTRELAY_RUN": self.run_id,
            "SPOTRELAY_GENERATION": str(generation),
            "SPOTRELAY_INSTANCE": f"i-{generation:08x}",
            "SPOTRELAY_TABLE": TABLE,
            "SPOTRELAY_BUCKET": BUCKET,
            "SPOTRELAY_BUS": BUS,
            "SPOTRELAY_HOME_REGION": "us-east-1",
            "SPOTRELAY_TIME_SCALE": str(self.scale),
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **metadata,
        }

    def uninterrupted(self, ranks: int = 0, **arguments: Any) -> dict[str, Any]:
        """What the same program leaves behind outside Spotrelay."""
        ended = self.nursery.run({}, {"total": self.total, **arguments}, None, ranks)
        assert ended.outcome is not None, ended.said
        return ended.outcome

    def hand_over(self, floor: int) -> None:
        """Compare every new checkpoint with S3, and fence every attempt below `floor`."""
        self.verify()
        self.runs.fence(self.run_id, floor)

    @contextmanager
    def verifying(self) -> Iterator[None]:
        """Compare new checkpoints with S3 all the time, as the control plane does."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.05):
                self.verify()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def verify(self) -> None:
        """Compare every new checkpoint with S3."""
        for checkpoint in self.checkpoints:
            if checkpoint.pending:
                where = checkpoint.id
                verdict = Verdict(where.generation, where.save, self._whole(checkpoint), checked_at=datetime.now(UTC))
                self.runs.record_verdict(self.run_id, verdict)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Newest first."""
        return self.live.checkpoints(self.run_id)

    def manifest(self, newest: int = 0) -> Manifest:
        """Of the newest checkpoint, or of one so many before it."""
        commit = self.checkpoints[newest].commit
        return decode_manifest(self.objects.get(commit.manifest_key, commit.manifest_version))

    def _whole(self, checkpoint: Checkpoint) -> bool:
        commit = checkpoint.commit
        manifest = decode_manifest(self.objects.get(commit.manifest_key, commit.manifest_version))
        there = {(o.key, o.version_id): o.size for o in self.objects.list_versions(f"runs/{self.run_id}/shards/")}
        return all(there.get((shard.key, shard.version_id)) == shard.size for shard in manifest.shards)


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """A nursery for the time of the block."""
    made = Nursery(folder)
    try:
        yield made
    finally:
        made.close()
