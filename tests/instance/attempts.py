"""A run with one attempt, and everything an agent needs, in memory."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spotrelay.core.checkpoint import Checkpoint, Commit, Manifest, Shard, Verdict, digest_of, manifest_key, shard_key
from spotrelay.core.errors import Missing
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.spec import Spec
from spotrelay.instance.agent import Agent
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.metadata import Metadata
from spotrelay.instance.programs import Programs
from spotrelay.instance.services import Services
from spotrelay.testing.objects import MemoryObjects
from spotrelay.testing.signals import MemoryPublisher
from spotrelay.testing.store import MemoryStore

RUN = "run-1"
INSTANCE = "i-0123456789abcdef0"
BORN = datetime(2030, 1, 1, tzinfo=UTC)


def a_spec(*command: str, **rest: Any) -> Spec:
    """A spec of this command."""
    return Spec(command=command or ("true",), instance_types=("g5.xlarge",), **rest)


def a_run(spec: Spec, run_id: str = RUN, instance_id: str | None = INSTANCE, **rest: Any) -> Run:
    """A run whose first attempt has a machine."""
    attempt = Attempt(1, AttemptState.BOOTING, instance_id)
    return replace(Run(run_id, spec, BORN, attempts=(attempt,), status=RunStatus.STARTING), **rest)


def an_identity(work: Path, generation: int = 1, time_scale: float = 0.002) -> Identity:
    """This machine, at a scale that makes minutes short."""
    return Identity(RUN, generation, INSTANCE, "table", "bucket", "bus", "eu-west-1", "us-east-1", work, time_scale)


def packed(files: Mapping[str, str]) -> tuple[bytes, str]:
    """A code bundle and its digest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    body = out.getvalue()
    return body, hashlib.sha256(body).hexdigest()


def store_checkpoint(objects: MemoryObjects, save: int, bodies: tuple[bytes, ...]) -> Checkpoint:
    """A checkpoint whose objects are really there, committed and verified."""
    shards = []
    for part, body in enumerate(bodies):
        digest = hashlib.md5(body).hexdigest()  # any 32 digits do here
        stored = objects.put(shard_key(RUN, 1, save, 0, part, digest), body)
        shards.append(Shard(stored.key, stored.version_id, stored.size, stored.etag, digest, stored.checksum))
    manifest = Manifest(RUN, 1, save, save * 10, tuple(shards)).encode()
    stored = objects.put(manifest_key(RUN, 1, save), manifest)
    size = sum(map(len, bodies))
    commit = Commit(RUN, 1, save, save * 10, stored.key, stored.version_id, digest_of(manifest), size)
    return Checkpoint(commit, Verdict(1, save, ok=True))


class MemorySecrets:
    """A `SecretSource` that knows these values."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def parameter(self, name: str) -> str:
        return self._look_up(f"ssm:{name}")

    def secret(self, name: str) -> str:
        return self._look_up(f"secretsmanager:{name}")

    def _look_up(self, reference: str) -> str:
        if reference not in self._values:
            raise Missing(f"there is no {reference}")
        return self._values[reference]


@dataclass
class Bench:
    """One agent and the memory around it."""

    work: Path
    metadata: Metadata
    store: MemoryStore = field(default_factory=MemoryStore)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    secrets: MemorySecrets = field(default_factory=MemorySecrets)
    logbook: Logbook = field(default_factory=Logbook)
    time_scale: float = 0.002
    live: Any = None  # the store, unless a test puts a faulty one here
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})

    def submit(self, run: Run) -> None:
        self.store.create(run)

    def agent(self) -> Agent:
        self.programs = Programs(self.logbook)
        me = an_identity(self.work, time_scale=self.time_scale)
        live = self.live or self.store
        services = Services(live, self.objects, self.publisher, self.secrets, self.metadata)
        return Agent(me, services, self.logbook, self.programs, self.environ)

    def log(self) -> str:
        """What is in S3."""
        chunks = sorted(self.objects.list_versions(f"runs/{RUN}/logs/"), key=lambda stored: stored.key)
        return b"".join(self.objects.get(chunk.key) for chunk in chunks).decode()
