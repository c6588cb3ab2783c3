"""A checkpoint in a replica: compared as at home, never waited for, never a verdict, and collected with home."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import COLLECTIONS_POSTPONED
from spotrelay.core.comparing import replica_in
from spotrelay.core.live import EXIT_DONE
from spotrelay.core.notice import InstanceState
from spotrelay.core.replica import Replica
from spotrelay.core.run import RunStatus
from spotrelay.core.site import Site
from spotrelay.core.spec import Keep
from spotrelay.testing import Fault, MemoryObjects, faulty
from tests.handlers.plane import SPEC, World

RUN, HERE, AWAY, COPY = "run-1", "eu-west-1", "us-west-2", "the-copy"
HOUR = timedelta(hours=1)
ONLY_AWAY = replace(SPEC, zones=("us-west-2a",))


@pytest.fixture
def copy() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def world(copy: MemoryObjects) -> World:
    zones = ((HERE, "eu-west-1a"), (AWAY, "us-west-2a"))
    return World(site=Site(zones, home=HERE, replicas=((AWAY, COPY),)), replicas={AWAY: copy})


def save(world: World, number: int = 1) -> None:
    world.checkpoint(save=number, step=10 * number)
    lease = world.store.read_lease(RUN)
    world.tell("Checkpoint Committed", run_id=RUN, generation=lease.generation, save=number)


def found(world: World) -> Replica:
    known = replica_in(world.run(), AWAY)
    assert known is not None
    return known


def lines(world: World) -> list[str]:
    return [entry.text for entry in world.store.timeline(RUN) if entry.kind == "replica"]


def lost(world: World, machine: str) -> None:
    world.clock.advance(timedelta(seconds=1))
    world.change(machine, InstanceState.TERMINATED)


def shard_keys(bucket: MemoryObjects) -> list[str]:
    return [stored.key for stored in bucket.list_versions(f"runs/{RUN}/shards/")]


def test_a_checkpoint_that_was_copied_whole_is_found_complete(world: World, copy: MemoryObjects) -> None:
    world.start()
    world.checkpoint()
    world.objects.replicate(copy)
    world.tell("Checkpoint Committed", run_id=RUN, generation=1, save=1)

    assert (found(world).complete, found(world).checkpoint, found(world).bucket) == (True, "1.1", COPY)
    assert lines(world) == [], "nobody is about to restore it there"


@pytest.mark.parametrize("harm", ["remove", "truncate", "hide", "manifest"])
def test_one_object_that_is_not_as_at_home_makes_it_incomplete(world: World, copy: MemoryObjects, harm: str) -> None:
    world.start()
    world.checkpoint()
    world.objects.replicate(copy)
    key = shard_keys(copy)[0]
    match harm:
        case "truncate":
            copy.truncate(key, 3)
        case "manifest":
            copy.damage(next(copy.list_versions(f"runs/{RUN}/manifests/")).key)
        case _:
            getattr(copy, harm)(key)

    world.tell("Checkpoint Committed", run_id=RUN, generation=1, save=1)

    assert not found(world).complete
    assert found(world).problem
    assert world.run().checkpoints[0].verified, "what is wrong with a copy says nothing about home"


def test_an_attempt_that_starts_there_is_told_where_to_read_before_it_boots(world: World, copy: MemoryObjects) -> None:
    machine = world.start(spec=ONLY_AWAY)
    save(world)
    world.objects.replicate(copy)

    lost(world, machine)

    assert found(world).complete
    assert lines(world) == ["checkpoint 1.1 is complete in the replica in us-west-2: attempt 2 may read it there"]


def test_a_replica_that_does_not_answer_holds_nothing_up(world: World, copy: MemoryObjects) -> None:
    world.replicas[AWAY] = faulty(copy, lambda method: Fault.UNAVAILABLE)
    machine = world.start(spec=ONLY_AWAY)
    save(world)

    lost(world, machine)

    attempt = world.run().current
    assert attempt is not None and (attempt.generation, attempt.instance_id is not None) == (2, True)
    assert not found(world).complete
    assert "could not be asked" in lines(world)[0]
    assert world.run().checkpoints[0].verified


def test_what_arrives_late_is_seen_while_the_machine_still_boots(world: World, copy: MemoryObjects) -> None:
    machine = world.start(spec=ONLY_AWAY)
    save(world)
    lost(world, machine)
    world.objects.replicate(copy)
    assert not found(world).complete

    world.sweep(world.site.timings.settle + timedelta(seconds=1))

    assert found(world).complete
    assert [line.partition(":")[0] for line in lines(world)] == [
        "checkpoint 1.1 is read at home",
        "checkpoint 1.1 is complete in the replica in us-west-2",
    ]


def test_what_is_collected_at_home_is_collected_in_the_replica(world: World, copy: MemoryObjects) -> None:
    world.start(spec=replace(SPEC, keep=Keep(newest=1)))
    for number in (1, 2, 3):
        save(world, number)
        world.objects.replicate(copy)
    before = len(shard_keys(copy))

    world.settle(sweeps=12, every=HOUR)

    assert shard_keys(copy) == shard_keys(world.objects)
    assert 0 < len(shard_keys(copy)) < before


def test_a_replica_that_does_not_answer_is_collected_later_also_when_the_run_is_over(
    world: World, copy: MemoryObjects
) -> None:
    world.replicas[AWAY] = faulty(copy, lambda method: Fault.UNAVAILABLE)
    machine = world.start()
    for number in (1, 2):
        save(world, number)
        world.objects.replicate(copy)
    world.exit(RUN, 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)
    world.settle(sweeps=12, every=HOUR)
    assert world.run().status is RunStatus.SUCCEEDED
    assert len(shard_keys(world.objects)) < len(shard_keys(copy))
    assert world.ledger.counts[COLLECTIONS_POSTPONED] > 0

    world.replicas[AWAY] = copy
    world.settle(sweeps=3, every=HOUR)

    assert shard_keys(copy) == shard_keys(world.objects)
    assert world.run().due_at is None, "nobody looks any more"
