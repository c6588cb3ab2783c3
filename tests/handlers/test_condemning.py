"""A shard that several checkpoints name is damaged: all of them are condemned, and the run goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from spotrelay.core.checkpoint import CheckpointId, Shard, decode_manifest, resume_candidate
from spotrelay.core.errors import Retired
from spotrelay.core.run import RunStatus
from spotrelay.testing import Crash, Fault, faulty
from spotrelay.testing.faults import at
from tests.handlers.checkpoints import put_checkpoint
from tests.handlers.plane import World

RUN = "run-1"
CONDEMNED = {"1.1": "condemned", "1.2": "condemned", "1.3": "condemned"}


@pytest.fixture
def world() -> World:
    """Three verified checkpoints that share a frozen shard, and one before them that does not."""
    world = World()
    world.start()
    save(world, 1)
    frozen = shards(world, "1.1")[:1]
    for number in (2, 3):
        save(world, number, frozen)
    return world


def save(world: World, number: int, elder: tuple[Shard, ...] = ()) -> None:
    """Commit a checkpoint and have it judged."""
    lease = world.store.read_lease(RUN)
    assert lease.holder is not None
    bodies = (b"frozen", b"1") if number == 1 else (b"%d" % number,)
    commit, _ = put_checkpoint(world.objects, RUN, 1, number, number * 10, bodies=bodies, elder=elder)
    on = (CheckpointId(1, number - 1),) if elder else ()
    world.store.commit(replace(commit, builds_on=on), lease.holder)
    world.tell("Checkpoint Committed", run_id=RUN, generation=1, save=number)


def shards(world: World, name: str) -> tuple[Shard, ...]:
    commit = next(c.commit for c in world.store.checkpoints(RUN, 40) if str(c.id) == name)
    return decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version)).shards


def states(world: World, limit: int = 20) -> dict[str, str]:
    return {str(c.id): c.state for c in world.store.checkpoints(RUN, limit)}


def damaged(world: World, save: int = 3, **plane: object) -> None:
    """A restore found that the frozen shard differs from its digest."""
    frozen = shards(world, "1.1")[0]
    detail = {"run_id": RUN, "generation": 1, "save": save, "problem": "its digest differs"}
    world.tell("Checkpoint Damaged", **plane, **detail, key=frozen.key, version=frozen.version_id)  # type: ignore[arg-type]


def test_a_shard_that_vanished_condemns_everyone_who_names_it_once_one_is_judged(world: World) -> None:
    assert set(states(world).values()) == {"verified"}
    frozen = shards(world, "1.1")[0]
    world.objects.remove(frozen.key)

    save(world, 4, (frozen,))

    assert states(world) == {**CONDEMNED, "1.4": "condemned"}


def test_a_reader_that_names_the_shard_condemns_everyone_who_names_it_also_those_in_between(world: World) -> None:
    damaged(world)

    assert states(world) == CONDEMNED
    told = [entry.data["checkpoint"] for entry in world.store.timeline(RUN) if entry.kind == "condemned"]
    assert sorted(told) == ["1.1", "1.2", "1.3"]


def test_who_does_not_name_it_is_compared_again_and_stays(world: World) -> None:
    save(world, 4)

    damaged(world)

    assert states(world) == {**CONDEMNED, "1.4": "verified"}
    candidate = resume_candidate(world.run().checkpoints)
    assert candidate is not None and str(candidate.id) == "1.4"


def test_a_reader_may_name_one_that_is_older_than_all_that_are_read_with_a_run(world: World) -> None:
    for number in range(4, 30):
        save(world, number)
    assert "1.3" not in {str(c.id) for c in world.run().checkpoints}

    damaged(world)

    assert {name for name, state in states(world, 40).items() if state == "condemned"} == set(CONDEMNED)


def test_one_that_the_run_does_not_have_condemns_nobody(world: World) -> None:
    damaged(world, save=77)

    assert set(states(world).values()) == {"verified"}


def test_a_reader_that_names_no_shard_condemns_the_one_that_it_read(world: World) -> None:
    world.tell("Checkpoint Damaged", run_id=RUN, generation=1, save=3, problem="its digest differs")

    assert states(world) == {"1.1": "verified", "1.2": "verified", "1.3": "condemned"}


def test_a_shard_that_the_read_checkpoint_does_not_name_condemns_nobody_else(world: World) -> None:
    own = shards(world, "1.2")[-1]

    world.tell("Checkpoint Damaged", run_id=RUN, generation=1, save=3, problem="?", key=own.key, version=own.version_id)

    assert states(world) == {"1.1": "verified", "1.2": "verified", "1.3": "condemned"}


def test_nothing_is_built_on_a_condemned_checkpoint_any_more(world: World) -> None:
    frozen = shards(world, "1.1")[:1]
    damaged(world)

    with pytest.raises(Retired):
        save(world, 4, frozen)

    assert states(world) == CONDEMNED


def test_the_next_whole_save_verifies_and_nothing_is_stuck(world: World) -> None:
    damaged(world)
    save(world, 5)

    for _ in range(40):
        world.beat(RUN, 1)
        world.sweep(timedelta(minutes=10))

    assert world.run().status is RunStatus.RUNNING
    assert states(world) == {"1.5": "verified"}
    assert {o.key.split("/")[4] for o in world.objects.list_versions(f"runs/{RUN}/shards/")} == {"000005"}


@pytest.mark.parametrize("method", ["retire", "record_verdict"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.UNAVAILABLE, Fault.LOST_REPLY])
def test_an_event_that_was_half_handled_is_handled_to_its_end_when_it_comes_back(
    world: World, method: str, call: int, fault: Fault
) -> None:
    plane = replace(world.plane, store=faulty(world.store, at(method, call, fault)))

    try:
        damaged(world, plane=plane)
    except Crash:
        assert fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
    damaged(world)

    assert states(world) == CONDEMNED


def test_while_s3_does_not_answer_the_event_comes_back(world: World) -> None:
    plane = replace(world.plane, objects=faulty(world.objects, at("get", 2, Fault.UNAVAILABLE)))
    frozen = shards(world, "1.1")[0]
    detail = {"run_id": RUN, "generation": 1, "save": 3, "key": frozen.key, "version": frozen.version_id}

    answer = world.tell("Checkpoint Damaged", plane=plane, **detail)

    assert answer["batchItemFailures"]
    assert states(world)["1.3"] == "condemned"
