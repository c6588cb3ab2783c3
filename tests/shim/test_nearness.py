"""A restore beside a replica: from there while it is good, from home where it is not, and the checkpoint stays good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spotrelay.core.checkpoint import Checkpoint
from spotrelay.core.errors import Unavailable
from spotrelay.core.live import Heartbeat
from spotrelay.core.ports import ObjectStore
from spotrelay.core.replica import Replica
from spotrelay.testing import Fault, MemoryObjects, faulty
from tests.shim.test_resume_choice import trained
from tests.shim.training import build, digest
from tests.shim.world import RUN, World, eventually
from trainer_shim import wiring

AWAY, COPY = "us-west-2", "the-copy"


class Beside:
    """A trained run whose next attempt starts in another region, beside a replica."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.copy = MemoryObjects()
        self.read: list[str] = []  # "home" or "replica", and the key, of every object that was opened
        world.submit()
        self.newest: Checkpoint = trained(world)[0]
        world.verify()
        world.objects.replicate(self.copy)
        world.folders["AWS_REGION"] = AWAY

    def find(self, complete: bool, problem: str = "", checkpoint: str = "") -> None:
        """Record what the control plane found in the replica."""
        name = checkpoint or str(self.newest.id)
        self.world.change(replicas=(Replica(AWAY, COPY, name, complete, problem),))

    def resume(self, nearby: Callable[[str], ObjectStore] | None = None) -> Any:
        """The run, as the next attempt's script gets it."""
        world = self.world
        beside = nearby or (lambda bucket: self._seen("replica", self.copy))
        world.ports = wiring.Ports(world.store, self._seen("home", world.objects), world.publisher, None, beside)
        self.parts = build()
        return world.attach(2, **self.parts.attached(), extra={})

    def told(self, word: str = "") -> str:
        """Where it was read, as the heartbeat says once it has this word in it."""
        beats = eventually(
            lambda: [b for b in self._beats() if b.resumed_checkpoint and word in b.resumed_via],
            f"a heartbeat after the restore with {word!r}",
        )
        return str(beats[0].resumed_via)

    def _beats(self) -> list[Heartbeat]:
        return [beat for beat in self.world.store.load(RUN).heartbeats if beat.generation == 2]

    def sources(self) -> set[str]:
        return {line.partition(" ")[0] for line in self.read}

    def _seen(self, name: str, store: MemoryObjects) -> Any:
        read = self.read

        class Seen(MemoryObjects):
            def __getattribute__(self, method: str) -> Any:
                return getattr(store, method) if method != "stream" else object.__getattribute__(self, method)

            def stream(self, key: str, version_id: str | None = None, start: int = 0) -> Any:
                read.append(f"{name} {key}")
                return store.stream(key, version_id, start)

        return Seen()


@pytest.fixture
def beside(world: World) -> Beside:
    return Beside(world)


def test_a_complete_replica_is_read_and_home_is_not(beside: Beside) -> None:
    beside.find(complete=True)

    run = beside.resume()

    assert run.resumed_from == beside.newest.commit.step
    assert beside.sources() == {"replica"}
    assert beside.told() == "the replica in us-west-2"


@pytest.mark.parametrize("harm", ["remove", "damage", "truncate"])
def test_a_shard_that_is_not_good_there_is_read_at_home_and_condemns_nothing(beside: Beside, harm: str) -> None:
    beside.find(complete=True)
    untouched = beside.resume()
    expected = digest(beside.parts.model)
    untouched.close()
    key = beside.world.shards(beside.newest)[0][0]
    beside.read.clear()
    beside.copy.truncate(key, 5) if harm == "truncate" else getattr(beside.copy, harm)(key)

    run = beside.resume()

    assert run.resumed_from == beside.newest.commit.step, "the very same checkpoint"
    assert digest(beside.parts.model) == expected
    assert [line for line in beside.read if line.startswith("home")] == [f"home {key}"]
    assert key in beside.told("in part from home")
    assert beside.world.publisher.of("Checkpoint Damaged") == []


def test_a_damaged_manifest_there_is_read_at_home(beside: Beside) -> None:
    beside.find(complete=True)
    beside.copy.damage(beside.newest.commit.manifest_key)

    assert beside.resume().resumed_from == beside.newest.commit.step
    assert f"home {beside.newest.commit.manifest_key}" in beside.read


def test_an_incomplete_replica_is_not_asked_and_the_heartbeat_says_why(beside: Beside) -> None:
    beside.find(complete=False, problem="a shard is not in the bucket")

    run = beside.resume()

    assert run.resumed_from == beside.newest.commit.step
    assert beside.sources() == {"home"}
    assert beside.told() == "home, since the replica in us-west-2 is not complete: a shard is not in the bucket"


def test_what_was_found_of_another_checkpoint_says_nothing_of_this_one(beside: Beside) -> None:
    beside.find(complete=True, checkpoint="1.1")

    beside.resume()

    assert beside.sources() == {"home"}
    assert "was not looked for there yet" in beside.told()


def test_a_replica_that_gives_no_answer_costs_a_moment(beside: Beside) -> None:
    beside.find(complete=True)

    run = beside.resume(lambda bucket: faulty(beside.copy, lambda method: Fault.UNAVAILABLE))

    assert run.resumed_from == beside.newest.commit.step
    assert beside.sources() == {"home"}


def test_a_replica_for_which_there_are_no_credentials_is_left_alone(beside: Beside) -> None:
    def refuse(bucket: str) -> ObjectStore:
        raise Unavailable("no AWS credentials were found")

    beside.find(complete=True)

    assert beside.resume(refuse).resumed_from == beside.newest.commit.step
    assert "no AWS credentials" in beside.told()


def test_without_a_replica_the_heartbeat_has_nothing_to_say(beside: Beside) -> None:
    beside.resume()

    assert (beside.told(), beside.sources()) == ("", {"home"})


def test_a_machine_in_the_buckets_own_region_reads_the_bucket(beside: Beside) -> None:
    beside.world.folders["AWS_REGION"] = "us-east-1"
    beside.find(complete=True)

    beside.resume()

    assert (beside.told(), beside.sources()) == ("", {"home"})
