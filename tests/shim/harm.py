"""A bucket and a table that an outside hand has harmed, and the way in that meets them, without its threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from spotrelay.core.checkpoint import Checkpoint, Commit, Manifest, decode_manifest, digest_of
from spotrelay.core.errors import Missing
from spotrelay.core.run import Run
from spotrelay.testing.objects import MemoryStream
from spotrelay.testing.signals import MemoryPublisher
from tests.shim.training import digest
from tests.shim.world import World
from trainer_shim import wiring
from trainer_shim.entry import Gate
from trainer_shim.environment import Identity, read_identity
from trainer_shim.frameworks.torch import TorchFramework
from trainer_shim.herald import Herald
from trainer_shim.ranks import Alone
from trainer_shim.restoring import Restored
from trainer_shim.resuming import resume
from trainer_shim.team import Team

Place = tuple[str, str]  # key and version


@dataclass
class Bucket:
    """What was in the bucket, and what the hand has put there instead; None: nothing."""

    clean: dict[Place, bytes]
    harmed: dict[Place, bytes | None] = field(default_factory=dict)

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> MemoryStream:
        body = self.harmed.get((key, str(version_id)), self.clean.get((key, str(version_id))))
        if body is None:
            raise Missing(f"{key} is not there")
        return MemoryStream(key, body, start)


class Table:
    """The store, with commits replaced."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._run = world.store.read_run("run-1")
        self.commits: dict[Any, Commit] = {}

    def read_run(self, run_id: str) -> Run:
        changed = tuple(replace(c, commit=self.commits.get(c.id, c.commit)) for c in self._run.checkpoints)
        return replace(self._run, checkpoints=changed)

    def checkpoints(self, run_id: str, limit: int = 20) -> tuple[Checkpoint, ...]:
        return self.read_run(run_id).checkpoints


class Watched(TorchFramework):
    """Notes what the model was at the moment before a state was applied to it."""

    before = ""

    def apply(self, state: dict[str, Any]) -> None:
        self.before = digest(self.models["model"])
        super().apply(state)


class Scene:
    """A run with a good checkpoint before the newest one, which is about to be harmed."""

    def __init__(self, world: World, newest: Checkpoint, older: Checkpoint) -> None:
        self.newest, self.older = newest, older
        self.manifest = self._manifest(world, newest)
        self.old_manifest = self._manifest(world, older)
        self.shards = [(shard.key, shard.version_id) for shard in self.manifest.shards]
        self.place = (newest.commit.manifest_key, newest.commit.manifest_version)
        old = (older.commit.manifest_key, older.commit.manifest_version)
        old_shards = [(shard.key, shard.version_id) for shard in self.old_manifest.shards]
        places = [*self.shards, self.place, old, *old_shards]
        self.bucket = Bucket({place: world.objects.get(*place) for place in places})
        self.table = Table(world)
        self.told: list[dict[str, Any]] = []
        identity = read_identity(world.environ(2))
        assert identity is not None
        ports: Any = wiring.Ports(self.table, self.bucket, world.publisher)  # type: ignore[arg-type]  # only reads
        self.gate = Gate(ports, identity, Silent(), Silent())  # type: ignore[arg-type]  # nobody listens

    def restart(self) -> None:
        """Undo every harm."""
        self.bucket.harmed.clear()
        self.table.commits.clear()
        self.told.clear()

    def forge(
        self, change: Callable[[Manifest], Manifest], rewrite: Callable[[bytes], bytes] = lambda body: body
    ) -> None:
        """Another manifest under the newest commit, with its digest: only what it says can give it away."""
        body = rewrite(change(self.manifest).encode())
        self.bucket.harmed[self.place] = body
        self.table.commits[self.newest.id] = replace(self.newest.commit, manifest_digest=digest_of(body))

    def resume(self, framework: TorchFramework) -> Restored | None:
        """As an attempt does before its first step."""
        return resume(self.gate, framework, Noting(self.told, self.gate.identity), Team(Alone()))

    @staticmethod
    def _manifest(world: World, checkpoint: Checkpoint) -> Manifest:
        return decode_manifest(world.objects.get(checkpoint.commit.manifest_key, checkpoint.commit.manifest_version))


class Noting(Herald):
    """A herald that keeps what it would tell of checkpoints."""

    def __init__(self, told: list[dict[str, Any]], identity: Identity) -> None:
        super().__init__(MemoryPublisher(), identity)
        self._told = told

    def report(self, what: str) -> None:
        pass

    def send(self, kind: str, detail: dict[str, Any]) -> None:
        self._told.append(detail)


class Silent:
    """Takes note of nothing."""

    ending = None

    def set(self, **changes: Any) -> None:
        pass
