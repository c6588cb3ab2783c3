"""What an attempt resumes from, and what it refuses to."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import Checkpoint, Commit, Health, Verdict, digest_of
from spotrelay.core.errors import InvalidInput
from spotrelay.core.live import EXIT_FENCED, Heartbeat, Phase
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.spec import NoCheckpoint
from spotrelay.testing import Fault, Script, faulty
from spotrelay.testing.objects import MemoryStream
from tests.shim.training import Parts, build, digest, train
from tests.shim.world import RUN, World, eventually, left_with
from trainer_shim import wiring


def trained(world: World, steps: int = 4) -> tuple[Checkpoint, ...]:
    """Train attempt 1 to its end; its checkpoints, newest first, none verified."""
    train(lambda **given: world.attach(1, **given), build(), steps, _settled)
    world.store.fence(RUN, 2)
    return world.checkpoints


def _settled(run: Any, steps: int) -> None:
    flight = run._session._saver.flight
    assert flight is None or flight.over.wait(20)


def say(world: World, checkpoint: Checkpoint, ok: bool, checked_at: datetime | None = None) -> None:
    """Record what the control plane found."""
    where = checkpoint.id
    verdict = Verdict(where.generation, where.save, ok, "" if ok else "gone", checked_at or datetime.now(UTC))
    world.store.record_verdict(RUN, verdict)


def attach(world: World, generation: int = 2, parts: Parts | None = None) -> Any:
    return world.attach(generation, **(parts or build()).attached(), extra={})


def test_the_first_attempt_begins_at_step_zero(world: World) -> None:
    world.submit(on_no_checkpoint=NoCheckpoint.STOP)

    run = attach(world, 1)

    assert (run.resumed_from, run.step_number) == (None, 0)


def test_the_newest_verified_checkpoint_is_taken_never_a_newer_condemned_one(world: World) -> None:
    world.submit()
    newest, middle, *_ = trained(world)
    say(world, newest, ok=False)
    say(world, middle, ok=True)

    assert attach(world).resumed_from == middle.commit.step


def test_a_verification_under_way_is_waited_for(world: World) -> None:
    world.submit()
    newest, middle, *_ = trained(world)
    say(world, middle, ok=True)
    threading.Timer(0.3, say, (world, newest, True)).start()

    assert attach(world).resumed_from == newest.commit.step


def test_the_wait_for_a_verification_is_bounded(world: World) -> None:
    world.submit()
    _, middle, *_ = trained(world)
    say(world, middle, ok=True)
    begun = time.monotonic()

    run = attach(world)

    assert run.resumed_from == middle.commit.step
    assert 2.0 < time.monotonic() - begun < 10.0  # the two minutes of production, scaled


def test_a_verdict_older_than_the_recheck_is_waited_for_to_be_renewed(world: World) -> None:
    world.submit()
    newest, middle, *_ = trained(world)
    now = datetime.now(UTC)
    for checkpoint in world.checkpoints:
        say(world, checkpoint, True, now)
    world.change(recheck_after=now + timedelta(seconds=1))
    threading.Timer(0.2, say, (world, newest, False)).start()
    threading.Timer(0.2, say, (world, middle, True, now + timedelta(seconds=2))).start()

    assert attach(world).resumed_from == middle.commit.step


def test_checkpoints_that_nobody_verified_end_the_attempt_instead_of_restarting(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.submit()
    trained(world)

    with left_with(1), caplog.at_level("INFO"):
        attach(world)

    assert "no checkpoint is verified" in caplog.text


def test_when_every_checkpoint_is_condemned_the_spec_decides(world: World) -> None:
    world.submit(on_no_checkpoint=NoCheckpoint.RESTART)
    for checkpoint in trained(world):
        say(world, checkpoint, ok=False)

    assert attach(world).resumed_from is None


def test_a_spec_that_says_stop_stops_when_every_checkpoint_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.submit(on_no_checkpoint=NoCheckpoint.STOP)
    for checkpoint in trained(world):
        say(world, checkpoint, ok=False)

    with left_with(1), caplog.at_level("INFO"):
        attach(world)

    assert "on_no_checkpoint: stop" in caplog.text


def test_progress_without_any_checkpoint_counts_as_lost_too(world: World) -> None:
    world.submit(on_no_checkpoint=NoCheckpoint.STOP)
    lost = Attempt(1, AttemptState.RESERVED, first_step_at=datetime.now(UTC))
    world.change(attempts=(lost,))

    with left_with(1):
        attach(world)


def test_a_lease_that_is_held_is_waited_for_with_a_beating_heart(world: World) -> None:
    world.submit()
    world.store.take_lease(RUN, 1, "i-elder")
    beats: list[Phase] = []

    def give_back() -> None:
        eventually(lambda: world.store.load(RUN).heartbeat(2), "it beat while it waited")
        beat = world.store.load(RUN).heartbeat(2)
        assert beat is not None
        beats.append(beat.phase)
        world.store.release_lease(RUN, 1, "i-elder")

    threading.Thread(target=give_back).start()
    run = attach(world)

    assert beats == [Phase.WAITING]
    assert world.store.read_lease(RUN).holder == "i-00000002"
    assert run.generation == 2


def test_a_replaced_attempt_ends_with_a_plain_word(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.submit()
    world.store.fence(RUN, 3)

    with left_with(EXIT_FENCED), caplog.at_level("INFO"):
        attach(world, 2)

    assert "has been replaced" in caplog.text


def test_the_heartbeat_goes_on_above_the_agents(world: World) -> None:
    world.submit()
    world.store.beat(Heartbeat(RUN, 1, 41, Phase.SETUP))

    attach(world, 1)

    def later() -> bool:
        beat = world.store.load(RUN).heartbeat(1)
        return beat is not None and beat.counter > 41 and beat.phase is Phase.TRAINING

    eventually(later, "the counter grew")


def test_the_agent_is_told_and_a_second_process_is_refused(world: World, tmp_path: Path) -> None:
    world.submit()
    world.folders["SPOTRELAY_STATE"] = str(tmp_path)
    attach(world, 1)

    assert (tmp_path / "attached").exists()
    with pytest.raises(InvalidInput, match="another process"):
        attach(world, 1)


# damage


def newest_verified(world: World, steps: int = 3) -> tuple[Checkpoint, Checkpoint]:
    world.submit()
    newest, older, *_ = trained(world, steps)
    world.verify()
    return newest, older


HARMS: dict[str, Any] = {
    "a flipped bit": lambda w, k, v: w.objects.damage(k, v),
    "a truncated shard": lambda w, k, v: w.objects.truncate(k, 100, v),
    "an emptied shard": lambda w, k, v: w.objects.truncate(k, 0, v),
    "a missing shard": lambda w, k, v: w.objects.remove(k, v),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_shard_is_found_before_the_model_is_touched(world: World, harm: str) -> None:
    newest, older = newest_verified(world)
    key, version = world.shards(newest)[0]
    HARMS[harm](world, key, version)

    run = attach(world)

    assert run.resumed_from == older.commit.step
    [said] = world.publisher.of("Checkpoint Damaged")
    assert (said["generation"], said["save"]) == (newest.id.generation, newest.id.save)
    assert key in said["problem"]
    assert (said["key"], said["version"]) == (key, version)


def test_shards_put_on_top_of_the_named_version_are_never_read(world: World) -> None:
    newest, _ = newest_verified(world)
    key, _ = world.shards(newest)[0]
    world.objects.overwrite(key, b"something else")

    assert attach(world).resumed_from == newest.commit.step


class Rewritten:
    """The store, with one commit replaced by another of the same number."""

    def __init__(self, world: World, commit: Commit) -> None:
        self._world = world
        self._commit = commit

    def read_run(self, run_id: str) -> Run:
        run = self._world.store.read_run(run_id)
        changed = tuple(replace(c, commit=self._commit) if c.id == self._commit.id else c for c in run.checkpoints)
        return replace(run, checkpoints=changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)


@pytest.mark.parametrize("which", ["of another checkpoint", "of another run", "flipped", "missing"])
def test_a_wrong_manifest_is_found(world: World, which: str) -> None:
    newest, older = newest_verified(world)
    commit = newest.commit
    if which == "missing":
        world.objects.remove(commit.manifest_key, commit.manifest_version)
    elif which == "flipped":
        world.objects.damage(commit.manifest_key, commit.manifest_version)
    else:
        body = world.objects.get(older.commit.manifest_key)
        if which == "of another run":
            body = world.objects.get(commit.manifest_key).replace(b'"run-1"', b'"run-2"')
        stored = world.objects.put("elsewhere", body)
        changed = replace(
            commit, manifest_key="elsewhere", manifest_version=stored.version_id, manifest_digest=digest_of(body)
        )
        world.ports = wiring.Ports(Rewritten(world, changed), world.objects, world.publisher)

    assert attach(world).resumed_from == older.commit.step


def test_when_all_that_is_verified_is_damaged_the_control_plane_decides(world: World) -> None:
    world.submit()
    for checkpoint in trained(world, 2):
        key, version = world.shards(checkpoint)[0]
        world.objects.damage(key, version)
    world.verify()

    with left_with(1):
        attach(world)

    assert len(world.publisher.of("Checkpoint Damaged")) == 2


def test_prefetched_shards_are_used_if_they_are_whole_and_ignored_if_not(world: World, tmp_path: Path) -> None:
    newest, _ = newest_verified(world)
    world.folders["SPOTRELAY_CACHE"] = str(tmp_path)
    [(key, version)] = world.shards(newest)
    held = tmp_path / key.rpartition("/")[2]
    held.write_bytes(world.objects.get(key, version)[:-1] + b"!")
    assert attach(world).resumed_from == newest.commit.step

    held.write_bytes(world.objects.get(key, version))
    world.objects.damage(key, version)
    world.store.fence(RUN, 3)
    assert attach(world, 3).resumed_from == newest.commit.step


# misfits


def test_a_model_of_another_shape_is_refused_with_the_names_and_left_alone(world: World) -> None:
    newest_verified(world)
    parts = build(width=20)
    before = digest(parts.model)

    with pytest.raises(InvalidInput, match=r"0\.weight is \(16, 8\) in the checkpoint, \(20, 8\) in the model"):
        attach(world, parts=parts)

    assert digest(parts.model) == before


def test_renamed_added_and_missing_parts_are_named(world: World) -> None:
    newest_verified(world)
    parts = build()
    parts.model = torch.nn.Sequential(*list(parts.model)[:4], torch.nn.Identity(), parts.model[4])

    with pytest.raises(InvalidInput) as refused:
        world.attach(2, model=parts.model, optimizer=parts.optimizer, extra={})

    assert "4.weight is in the checkpoint only" in str(refused.value)
    assert "5.weight is in the model only" in str(refused.value)
    assert "scheduler is in the checkpoint, and was not attached" in str(refused.value)


def test_another_dtype_is_refused(world: World) -> None:
    newest_verified(world)
    parts = build()
    parts.model.double()

    with pytest.raises(InvalidInput, match=r"torch\.float32 in the checkpoint, torch\.float64 in the model"):
        attach(world, parts=parts)


# a world that fails


def test_reading_goes_on_through_faults(world: World) -> None:
    newest, _ = newest_verified(world)
    bumpy = [Fault.UNAVAILABLE, Fault.NONE, Fault.THROTTLE]
    world.ports = wiring.Ports(
        faulty(world.store, Script({"read_run": bumpy, "take_lease": [Fault.LOST_REPLY, Fault.NONE]})),
        faulty(world.objects, Script({"stream": [*bumpy, Fault.LOST_REPLY, Fault.NONE, Fault.LOST_REPLY]})),
        world.publisher,
    )

    assert attach(world).resumed_from == newest.commit.step


def test_a_bad_checkpoint_is_never_resumed_from(world: World) -> None:
    world.submit()

    def poison(run: Any, steps: int) -> None:
        _settled(run, steps)
        if steps == 3:
            with torch.no_grad():
                parts.model.get_parameter("0.weight")[0, 0] = float("nan")

    parts = build()
    train(lambda **given: world.attach(1, **given), parts, 6, poison)
    world.hand_over(2)

    resumed_from = attach(world).resumed_from

    healths = {c.commit.step: c.commit.health for c in world.checkpoints}
    assert healths[6] is Health.BAD
    assert resumed_from == max(step for step, health in healths.items() if health is not Health.BAD) < 4


def test_bytes_that_were_damaged_on_their_way_are_fetched_again(world: World) -> None:
    newest, _ = newest_verified(world)

    class Noisy:
        def __init__(self) -> None:
            self.asked: set[str] = set()

        def stream(self, key: str, version_id: str | None = None, start: int = 0) -> MemoryStream:
            body = world.objects.get(key, version_id)
            if key not in self.asked and "shards" in key:
                body = body[:-1] + bytes([body[-1] ^ 1])
            self.asked.add(key)
            return MemoryStream(key, body, start)

        def __getattr__(self, name: str) -> Any:
            return getattr(world.objects, name)

    world.ports = wiring.Ports(world.store, Noisy(), world.publisher)

    assert attach(world).resumed_from == newest.commit.step
    assert world.publisher.of("Checkpoint Damaged") == []


def test_another_number_of_threads_is_told_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    newest_verified(world)

    torch.set_num_threads(2)
    try:
        with caplog.at_level("INFO"):
            attach(world)
    finally:
        torch.set_num_threads(1)

    assert "was computed with 1 threads, this machine uses 2" in caplog.text
