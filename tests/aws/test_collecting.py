"""Retiring, deleting by version and forgetting, with the real adapters over HTTP: versions are S3's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from handlers.control import ControlPlane
from handlers.respond import respond
from spotrelay.aws.clients import Clients
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.checkpoint import shard_key
from spotrelay.core.facts import Verified
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.run import Run
from tests.handlers.checkpoints import put_checkpoint
from tests.handlers.plane import SPEC, World

RUN = "run-1"


@dataclass
class Cloud:
    """A control plane over a real table and a real bucket; the rest in memory."""

    plane: ControlPlane
    live: DynamoLiveStore
    world: World
    beats: int = 0

    def look(self, after: timedelta = timedelta(minutes=1)) -> None:
        self.world.clock.advance(after)
        self.beats += 1
        self.live.beat(Heartbeat(RUN, 1, self.beats, Phase.TRAINING, step=10, total=100, first_step=True))
        respond(self.plane, RUN)

    def save(self, number: int, elder: Any = ()) -> Any:
        """Commit a checkpoint and have it judged; returns its shards."""
        bodies = (b"%d" % number, b"frozen") if number == 1 else (b"%d" % number,)
        commit, manifest = put_checkpoint(self.plane.objects, RUN, 1, number, number, bodies=bodies, elder=elder)
        newest = self.live.checkpoints(RUN, limit=1)
        on = tuple(c.id for c in newest) if elder else ()
        self.live.commit(replace(commit, builds_on=on), self.machine)
        self.look()
        return manifest.shards

    @property
    def machine(self) -> str:
        current = self.plane.store.load(RUN).current
        assert current is not None and current.instance_id is not None
        return current.instance_id

    def stored(self) -> list[str]:
        return sorted(o.key.split(f"runs/{RUN}/")[1] for o in self.plane.objects.list_versions(f"runs/{RUN}/"))


def started(clients: Clients, table: str, bucket: str) -> Cloud:
    """A run whose first attempt trains."""
    dynamodb, world = clients.client("dynamodb"), World()
    plane = replace(
        world.plane,
        store=DynamoRunStore(dynamodb, table),
        objects=S3ObjectStore(clients.client("s3"), bucket),
    )
    cloud = Cloud(plane, DynamoLiveStore(dynamodb, table), world)
    plane.store.create(Run(RUN, SPEC, world.clock.now()))
    respond(plane, RUN)
    cloud.live.take_lease(RUN, 1, cloud.machine)
    cloud.look()
    return cloud


def test_what_is_superfluous_goes_from_the_bucket_and_the_table_and_a_frozen_shard_stays(
    clients: Clients, table: str, bucket: str
) -> None:
    cloud = started(clients, table, bucket)
    frozen = cloud.save(1)[1:]
    for number in range(2, 6):
        cloud.save(number, elder=frozen)
    cloud.plane.objects.put(shard_key(RUN, 1, 6, 0, 0, "e" * 32), b"given up")
    cloud.save(7, elder=frozen)
    slow = cloud.plane.objects.put(shard_key(RUN, 1, 8, 0, 0, "f" * 32), b"under way")

    for _ in range(8):
        cloud.look(cloud.plane.site.timings.grace / 2)

    assert [str(c.id) for c in cloud.plane.store.checkpoints(RUN)] == ["1.7", "1.5", "1.4"]
    shards = [key for key in cloud.stored() if key.startswith("shards/")]
    assert [key.split("/")[2] for key in shards] == ["000001", "000004", "000005", "000007", "000008"]
    assert cloud.plane.objects.get(frozen[0].key, frozen[0].version_id) == b"frozen"
    assert cloud.plane.objects.get(slow.key) == b"under way"
    assert [key for key in cloud.stored() if key.startswith("manifests/")] == [
        f"manifests/000001/00000{n}.json" for n in (4, 5, 7)
    ]


def test_a_damaged_frozen_shard_condemns_all_and_the_next_whole_save_is_all_that_is_left(
    clients: Clients, table: str, bucket: str
) -> None:
    cloud = started(clients, table, bucket)
    (shard,) = cloud.save(1)[1:]
    for number in (2, 3):
        cloud.save(number, elder=(shard,))

    respond(cloud.plane, RUN, [Verified(1, 3, False, "its digest differs", shard.key, shard.version_id)])
    assert {c.state for c in cloud.plane.store.checkpoints(RUN)} == {"condemned"}

    cloud.save(4)
    for _ in range(8):
        cloud.look(cloud.plane.site.timings.grace / 2)

    assert [(str(c.id), c.state) for c in cloud.plane.store.checkpoints(RUN)] == [("1.4", "verified")]
    assert {key.split("/")[2] for key in cloud.stored()} == {"000004", "000004.json"}
