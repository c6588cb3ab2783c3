"""Retiring, deleting and forgetting: what goes, what stays, and what happens when that fails half way."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.settings import CHECKPOINTS_OVERDUE, COLLECTIONS_POSTPONED
from spotrelay.core.checkpoint import Checkpoint, CheckpointId, Shard, decode_manifest, shard_key
from spotrelay.core.live import EXIT_DONE, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.core.spec import Keep
from spotrelay.testing import Crash, Fault, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import SPEC, World

RUN = "run-1"
HOUR = timedelta(hours=1)
PREFIX = f"runs/{RUN}/"


@pytest.fixture
def world() -> World:
    return World()


def ids(world: World) -> list[str]:
    return [str(c.id) for c in world.store.checkpoints(RUN)]


def known(world: World, name: str) -> Checkpoint:
    return next(c for c in world.store.checkpoints(RUN) if str(c.id) == name)


def keys(world: World, kind: str = "") -> set[str]:
    """Keys of the run's objects, without the run's prefix."""
    return {o.key.removeprefix(PREFIX) for o in world.objects.list_versions(f"{PREFIX}{kind}")}


def places(world: World, kind: str = "shards") -> set[str]:
    """The saves that have objects of this kind, as checkpoint ids."""
    parts = (key.split("/") for key in keys(world, f"{kind}/"))
    return {str(CheckpointId(int(part[1]), int(part[2].removesuffix(".json")))) for part in parts}


def save(world: World, number: int, elder: tuple[Shard, ...] = (), **more: object) -> None:
    """Commit a checkpoint of the holder and have it judged."""
    world.checkpoint(save=number, step=number * 10, elder=elder, **more)
    lease = world.store.read_lease(RUN)
    world.tell("Checkpoint Committed", run_id=RUN, generation=lease.generation, save=number)


def shards(world: World, name: str) -> tuple[Shard, ...]:
    commit = known(world, name).commit
    return decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version)).shards


def pass_time(world: World, hours: int) -> None:
    """The training goes on, and the sweep looks every ten minutes."""
    for _ in range(hours * 6):
        for attempt in world.run().live:
            if not attempt.over:
                world.beat(RUN, attempt.generation)
        world.sweep(timedelta(minutes=10))


def killed_in_mid_save(world: World, number: int, generation: int = 1) -> str:
    """Shards without a manifest, as a process leaves them that was killed; returns a key."""
    key = shard_key(RUN, generation, number, 0, 0, "f" * 32)
    world.objects.put(key, b"half a checkpoint")
    return key


def test_what_is_not_kept_is_retired_then_deleted_a_grace_later_then_forgotten(world: World) -> None:
    world.start()
    for number in range(1, 7):
        save(world, number)

    pass_time(world, 1)
    assert [c.state for c in world.store.checkpoints(RUN)] == ["verified"] * 3 + ["retired"] * 3
    assert places(world) == {f"1.{n}" for n in range(1, 7)}

    pass_time(world, 4)
    assert ids(world) == ["1.6", "1.5", "1.4"]
    assert places(world) == places(world, "manifests") == {"1.4", "1.5", "1.6"}


def test_a_retired_checkpoint_is_readable_for_a_whole_grace(world: World) -> None:
    world.start()
    for number in (1, 2, 3):
        save(world, number)
    pass_time(world, 6)
    save(world, 4)
    pass_time(world, 1)
    retired_at = known(world, "1.1").retired_at
    assert retired_at is not None

    while world.clock.now() < retired_at + world.site.timings.grace:
        assert all(world.objects.get(shard.key, shard.version_id) for shard in shards(world, "1.1"))
        world.beat(RUN, 1)
        world.sweep(timedelta(minutes=10))

    pass_time(world, 1)
    assert places(world) == {"1.2", "1.3", "1.4"}


def test_a_retired_checkpoint_is_not_resumed_from(world: World) -> None:
    world.start()
    for number in range(1, 5):
        save(world, number)

    pass_time(world, 1)

    assert not known(world, "1.1").usable


def test_a_frozen_shard_outlives_the_checkpoint_that_brought_it(world: World) -> None:
    world.start()
    save(world, 1, bodies=(b"frozen", b"first"))
    frozen = shards(world, "1.1")[:1]
    for number in range(2, 7):
        save(world, number, elder=frozen, bodies=(b"%d" % number,))

    pass_time(world, 6)

    assert ids(world) == ["1.6", "1.5", "1.4"]
    assert places(world) == {"1.1", "1.4", "1.5", "1.6"}
    assert world.objects.get(frozen[0].key, frozen[0].version_id) == b"frozen"
    assert len(keys(world, "shards/000001/000001/")) == 1


def test_a_frozen_shard_goes_with_the_last_that_names_it(world: World) -> None:
    world.start()
    save(world, 1, bodies=(b"frozen", b"first"))
    frozen = shards(world, "1.1")[:1]
    save(world, 2, elder=frozen)
    for number in range(3, 7):
        save(world, number)

    pass_time(world, 6)

    assert places(world) == {"1.4", "1.5", "1.6"}


def test_what_was_never_committed_goes_once_it_never_can_be(world: World) -> None:
    machine = world.start()
    save(world, 1)
    key = killed_in_mid_save(world, 2)
    world.objects.put(f"{PREFIX}parts/000001/000002/0000.json", b"acknowledged")
    world.change(machine, InstanceState.TERMINATED)
    world.train()

    pass_time(world, 5)

    assert key.removeprefix(PREFIX) not in keys(world)
    assert not keys(world, "parts/")
    assert places(world) == {"1.1"}


def test_a_slow_save_of_the_living_attempt_is_never_touched(world: World) -> None:
    world.start()
    save(world, 1)
    key = killed_in_mid_save(world, 2)

    pass_time(world, 48)

    assert key.removeprefix(PREFIX) in keys(world)
    save(world, 2)
    assert known(world, "1.2").verified


def test_the_first_save_of_the_next_attempt_is_never_touched(world: World) -> None:
    machine = world.start()
    save(world, 1)
    world.change(machine, InstanceState.TERMINATED)
    key = killed_in_mid_save(world, 1, generation=2)  # it writes before we have seen it take the lease

    pass_time(world, 12)

    assert key.removeprefix(PREFIX) in keys(world)


def test_a_save_that_was_given_up_goes_while_the_attempt_goes_on(world: World) -> None:
    world.start()
    save(world, 1)
    key = killed_in_mid_save(world, 2)
    save(world, 3)

    pass_time(world, 5)

    assert key.removeprefix(PREFIX) not in keys(world)
    assert ids(world) == ["1.3", "1.1"]


def test_what_a_zombie_leaves_behind_goes_at_a_later_look(world: World) -> None:
    machine = world.start()
    save(world, 1)
    world.change(machine, InstanceState.TERMINATED)
    world.train()
    pass_time(world, 6)

    key = killed_in_mid_save(world, 9)
    pass_time(world, 2)

    assert key.removeprefix(PREFIX) not in keys(world)


def test_the_promoted_one_and_the_one_that_was_resumed_from_stay(world: World) -> None:
    machine = world.start()
    for number in (1, 2):
        save(world, number)
    world.store.promote(RUN, CheckpointId(1, 1), machine)
    world.change(machine, InstanceState.TERMINATED)
    successor = world.train()
    world.store.beat(Heartbeat(RUN, 2, 50, Phase.TRAINING, 20, 100, resumed_from=20, resumed_checkpoint="1.2"))
    for number in range(1, 6):
        save(world, number)
    world.look()

    world.sweep(HOUR)
    assert {str(c.id) for c in world.store.checkpoints(RUN) if not c.retired} == {"1.1", "1.2", "2.3", "2.4", "2.5"}

    world.store.promote(RUN, CheckpointId(2, 4), successor)
    world.change(successor, InstanceState.TERMINATED)
    world.sweep(2 * HOUR)
    assert {str(c.id) for c in world.store.checkpoints(RUN) if not c.retired} == {"2.3", "2.4", "2.5"}


def test_milestones_stay_as_long_as_the_run_and_longer(world: World) -> None:
    machine = world.start(spec=replace(SPEC, keep=Keep(1, every_steps=50)))
    for number in range(1, 13):
        save(world, number)
    pass_time(world, 5)
    assert ids(world) == ["1.12", "1.10", "1.5"]

    world.exit(RUN, 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)
    pass_time(world, 8)

    assert places(world) == {"1.5", "1.10", "1.12"}


def test_of_a_finished_run_the_last_good_one_stays_and_then_nobody_looks_any_more(world: World) -> None:
    machine = world.start()
    for number in (1, 2, 3):
        save(world, number)
    killed_in_mid_save(world, 4)
    world.exit(RUN, 1, EXIT_DONE)
    world.change(machine, InstanceState.TERMINATED)

    world.settle(60, every=timedelta(minutes=10))

    assert world.run().status is RunStatus.SUCCEEDED
    assert places(world) == places(world, "manifests") == {"1.3"}
    assert ids(world) == ["1.3"]
    assert world.run().due_at is None


def test_logs_code_and_other_runs_are_nobodys_garbage(world: World) -> None:
    foreign = [
        f"{PREFIX}logs/000001/1.log",
        "code/0.tar.gz",
        "runs/run-10/shards/000001/000001/a",
        f"{PREFIX}shards/odd",
    ]
    for key in foreign:
        world.objects.put(key, b"not ours to delete")
    machine = world.start()
    save(world, 1)
    world.change(machine, InstanceState.TERMINATED)
    world.train()

    pass_time(world, 8)

    assert all(world.objects.get(key) for key in foreign)


def test_a_run_that_saves_for_long_keeps_a_bounded_table_and_bucket(world: World) -> None:
    world.start()
    most = 0
    for number in range(1, 201):
        world.checkpoint(save=number, step=number, bodies=(b"%d" % number,))
        world.beat(RUN, 1)
        world.sweep(timedelta(minutes=8))
        most = max(most, len(world.store.checkpoints(RUN, 10**6)))

    assert most < 45  # five hours' worth of saves: retired within one, deleted within four
    assert len(keys(world)) < 2 * 45


def test_more_garbage_than_one_look_takes_is_taken_by_the_next_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.collect.MOST_DELETED", 3)
    world.start()
    for number in range(1, 9):
        save(world, number)

    pass_time(world, 5)
    assert len(ids(world)) in (3, 8)
    world.settle(20)

    assert places(world) == {"1.6", "1.7", "1.8"}
    assert ids(world) == ["1.8", "1.7", "1.6"]


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.THROTTLE, Fault.LOST_REPLY])
@pytest.mark.parametrize("method", ["list_versions", "get", "delete", "retire", "forget", "checkpoints"])
def test_without_an_answer_the_rest_waits_and_the_run_goes_on(world: World, method: str, fault: Fault) -> None:
    world.start()
    for number in range(1, 6):
        save(world, number)
    port = "store" if method in ("retire", "forget", "checkpoints") else "objects"

    for hour in range(1, 7):
        plane = replace(world.plane, **{port: faulty(getattr(world, port), at(method, 1, fault))})
        world.beat(RUN, 1)
        world.sweep(HOUR, plane=plane)
        assert world.run().status is RunStatus.RUNNING, hour
        for name in ids(world)[:3]:
            assert all(world.objects.head(s.key, s.version_id) for s in shards(world, name))
    assert world.ledger.counts[COLLECTIONS_POSTPONED]

    pass_time(world, 5)
    assert places(world) == {"1.3", "1.4", "1.5"}
    assert ids(world) == ["1.5", "1.4", "1.3"]


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
@pytest.mark.parametrize(("method", "calls"), [("delete", 9), ("retire", 3), ("forget", 3), ("save", 3)])
def test_a_function_that_dies_in_between_is_finished_by_the_next(
    world: World, method: str, calls: int, fault: Fault
) -> None:
    for call in range(1, calls + 1):
        world = World()
        world.start()
        save(world, 1, bodies=(b"frozen", b"first"))
        frozen = shards(world, "1.1")[:1]
        for number in range(2, 6):
            save(world, number, elder=frozen, bodies=(b"%d" % number, b"b%d" % number))
        port = "objects" if method == "delete" else "store"
        script = at(method, call, fault)
        plane = replace(world.plane, **{port: faulty(getattr(world, port), script)})

        for _ in range(12):
            world.beat(RUN, 1)
            with contextlib.suppress(Crash):
                world.sweep(HOUR / 2, plane=plane)
            for name in ids(world)[:3]:
                assert all(world.objects.head(s.key, s.version_id) for s in shards(world, name))
        pass_time(world, 2)

        assert places(world) == {"1.1", "1.3", "1.4", "1.5"}
        assert ids(world) == ["1.5", "1.4", "1.3"]


def test_a_manifest_that_vanished_is_judged_before_anything_is_deleted(world: World) -> None:
    world.start()
    for number in (1, 2, 3, 4):
        save(world, number)
    world.objects.remove(known(world, "1.3").commit.manifest_key)

    pass_time(world, 8)

    assert ids(world) == ["1.4", "1.2"]
    assert places(world) == {"1.2", "1.4"}


def test_the_function_of_notices_deletes_nothing_and_leaves_it_to_the_next(world: World) -> None:
    machine = world.start()
    for number in range(1, 6):
        save(world, number)
    deleted: list[str] = []

    def draw(method: str) -> Fault:
        deleted.extend([method] * (method in ("delete", "list_versions")))
        return Fault.NONE

    plane = replace(world.plane, collects=False, objects=faulty(world.objects, draw))
    for _ in range(8):
        world.beat(RUN, 1)
        world.deliver(
            {
                "source": "aws.ec2",
                "detail-type": "EC2 Instance Rebalance Recommendation",
                "detail": {"instance-id": machine},
            },
            plane=plane,
        )
        world.clock.advance(HOUR)

    assert deleted == []
    due_at = world.run().due_at
    assert due_at is not None and due_at <= world.clock.now()
    pass_time(world, 5)
    assert places(world) == {"1.3", "1.4", "1.5"}


def test_a_run_that_trains_without_a_new_verified_checkpoint_is_told_of(world: World) -> None:
    world.start()
    save(world, 1)
    pass_time(world, 2)
    assert not world.ledger.counts[CHECKPOINTS_OVERDUE]

    pass_time(world, 2)  # the longest interval is two hours, and one more is allowed for

    assert world.ledger.counts[CHECKPOINTS_OVERDUE]
    assert ("warning", "no new verified checkpoint") in {line[:2] for line in world.ledger.lines}
