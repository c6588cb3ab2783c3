"""How snapshots are taken: at once, lazily, in turns under a bound, or in place; and what need not travel again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import torch
from torch import nn

from spotrelay.core.checkpoint import Commit, Manifest, SaveReason, Verdict, decode_manifest
from spotrelay.core.errors import Unavailable
from spotrelay.core.ports import Body, StoredObject, size_of
from spotrelay.core.spec import Cadence
from spotrelay.testing import MemoryObjects, MemoryStore
from tests.shim.training import build, train
from tests.shim.world import RUN, World
from trainer_shim import shards, staging, taking, wiring
from trainer_shim.uploading.process import UploadProcess


def settled(run: Any, steps: int) -> None:
    flight = run._session._saver.flight
    assert flight is None or flight.over.wait(20)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards so small that a test's model has many."""
    monkeypatch.setattr(shards, "LIMIT", 4096)


def manifest(world: World, newest: int = 0) -> Manifest:
    commit = world.checkpoints[newest].commit
    return decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))


def resumed(world: World, **wishes: Any) -> Any:
    world.hand_over(2)
    return train(lambda **given: world.attach(2, **given, **wishes), build(width=64))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wishes", [{}, {"lazy": True}, {"staging_bytes": 2**20}], ids=["at once", "lazy", "bounded"])
def test_a_run_that_is_resumed_ends_in_the_same_bits_however_snapshots_are_taken(
    world: World, wishes: dict[str, Any]
) -> None:
    world.submit()
    expected = train(lambda **given: world.attach(1, **given), build(width=64))
    other = World(world.monkeypatch)
    other.submit()

    train(lambda **given: other.attach(1, **given, **wishes), build(width=64), 12, settled)
    ended = resumed(other, **wishes)

    assert ended.digest == expected.digest
    assert ended.losses == {step: loss for step, loss in expected.losses.items() if step >= 12}
    other.close()


class Held:
    """A bucket whose puts wait until they may go on."""

    def __init__(self) -> None:
        self.inner = MemoryObjects()
        self.go = threading.Event()
        self.go.set()
        self.asked = threading.Semaphore(0)

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        self.asked.release()
        assert self.go.wait(20)
        return self.inner.put(key, body, checksum)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def one_step(parts: Any, batch: Any) -> torch.Tensor:
    inputs, wanted = batch
    loss = nn.functional.cross_entropy(parts.model(inputs), wanted)
    parts.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
    parts.optimizer.step()
    return loss


class SlowCopy:
    """Holds a lazy copy back until it is let go on."""

    def __init__(self, framework: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self._stage = framework.stage
        monkeypatch.setattr(framework, "stage", self._slow)

    def _slow(self, *given: Any) -> None:
        if threading.current_thread().name == "spotrelay-snapshot":
            self.begun.set()
            assert self.go.wait(20)
        self._stage(*given)


@pytest.mark.usefixtures("small")
def test_a_lazy_snapshot_holds_the_optimizer_back_until_every_array_was_copied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(Cadence(every_steps=3))
    parts = build(width=64)
    run = world.attach(1, **parts.attached(), lazy=True)
    copy = SlowCopy(run._framework, monkeypatch)
    waited: list[bool] = []
    for step, batch in run.steps(total=4):
        if step == 3:
            assert copy.begun.wait(20)
            before = parts.model[0].weight.detach().clone()
            parts.optimizer.register_step_pre_hook(lambda *_: waited.append(copy.go.is_set()))
            threading.Timer(0.2, copy.go.set).start()
        run.step(one_step(parts, batch))
    run.close()

    saved = next(c for c in world.checkpoints if c.commit.step == 3)
    assert waited == [True]
    assert torch.equal(_weight_of(world, saved), before)
    assert not torch.equal(parts.model[0].weight, before)


def _weight_of(world: World, checkpoint: Any) -> torch.Tensor:
    from trainer_shim.frameworks.torch import TorchFramework
    from trainer_shim.restoring import fetch

    ports = wiring.Ports(world.store, world.objects, world.publisher)
    framework = TorchFramework(build(width=64).model, None, None, None, None)
    state = fetch(checkpoint, ports, framework, None, lambda request: request()).state
    weight = state["models"]["model"]["0.weight"]
    assert isinstance(weight, torch.Tensor)
    return weight.clone()


@pytest.mark.usefixtures("small")
def test_a_lazy_snapshot_that_somebody_wrote_into_is_void_and_the_next_ones_are_copied_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.submit(Cadence(every_steps=2))
    parts = build(width=64)
    run = world.attach(1, **parts.attached(), lazy=True)
    taker = run._session._saver._taker
    copy = SlowCopy(run._framework, monkeypatch)
    for step, batch in run.steps(total=8):
        if step == 2:
            assert copy.begun.wait(20)
            with torch.no_grad():
                parts.model[0].weight.mul_(1.0)
            copy.go.set()
        run.step(one_step(parts, batch))
        settled(run, step)
    run.close()

    assert 2 not in world.steps_committed()
    assert world.steps_committed()[-1] == 8
    assert not taker.lazy
    assert "copied at once from now on" in caplog.text


@pytest.mark.usefixtures("small")
def test_a_bounded_buffer_never_grows_and_every_byte_goes_through_it(world: World) -> None:
    world.submit(Cadence(every_steps=2))
    parts = build(width=4096)  # 0.8 MB of parameters and moments

    train(lambda **given: world.attach(1, **given, staging_bytes=2**20), parts, 6, settled)

    run = world.open[-1]
    staging_buffer = run._session._saver._taker.staging
    assert staging_buffer.size <= 2**20
    assert manifest(world).shards and sum(shard.size for shard in manifest(world).shards) > 0


@pytest.mark.usefixtures("small")
def test_a_bucket_that_takes_nothing_stops_a_bounded_save_and_not_the_training(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(Cadence(every_steps=2))
    held = Held()
    world.ports = wiring.Ports(world.store, held, world.publisher)
    monkeypatch.setattr(staging, "_aligned", lambda size: max(size, 2**18))  # so that four shards fill the bound
    parts = build(width=512)
    run = world.attach(1, **parts.attached(), staging_bytes=2**20)
    seen = []
    for step, batch in run.steps(total=8):
        if step == 2:
            held.go.clear()
        run.step(one_step(parts, batch))
        seen.append(step)
        if step == 6:
            held.go.set()
    run.close()

    assert seen == list(range(8))
    assert world.steps_committed()[-1] == 8


def adapter() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 2, bias=False))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    return model, torch.optim.AdamW(model[1].parameters(), lr=1e-2)


class Counting(MemoryObjects):
    """Counts what is uploaded."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        self.sizes[key] = size_of(body)
        return super().put(key, body, checksum)

    def of_save(self, save: int) -> int:
        return sum(size for key, size in self.sizes.items() if f"/shards/000001/{save:06d}/" in key)


def fine_tune(world: World, generation: int, total: int, after: Any, **wishes: Any) -> Any:
    model, optimizer = adapter()
    run = world.attach(generation, model=model, optimizer=optimizer, **wishes)
    source = torch.Generator().manual_seed(5)
    batches = [torch.randn(4, 256, generator=source) for _ in range(4)]
    for step, batch in run.steps(batches, total=total):
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.step(loss)
        after(run, step)
    run.close()
    return model


def verified(world: World) -> Any:
    def after(run: Any, step: int) -> None:
        settled(run, step)
        world.verify()

    return after


def test_a_frozen_base_is_uploaded_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT", 2**20)
    world.objects = Counting()
    world.submit()

    fine_tune(world, 1, 6, verified(world))

    whole = world.objects.of_save(1)
    assert whole > 256 * 256 * 4
    later = [world.objects.of_save(save) for save in range(3, 6)]
    assert all(0 < size < 0.1 * whole for size in later)
    named = {shard.key for shard in manifest(world).shards}
    assert any("/000001/000001/" in key for key in named)
    bases = {c.id.save: [base.save for base in c.commit.builds_on] for c in world.checkpoints}
    assert bases[1] == []
    assert all(bases[save] == [save - 1] for save in range(3, 6))
    world.hand_over(2)
    model, _ = adapter()
    untouched = model[0].weight.clone()
    resumed_run = world.attach(2, model=model, optimizer=adapter()[1])
    assert resumed_run.resumed_from == 6
    assert torch.equal(model[0].weight, untouched)


def test_a_checkpoint_that_is_not_verified_is_not_built_on(world: World) -> None:
    world.objects = Counting()
    world.submit()

    fine_tune(world, 1, 4, settled)

    assert all(world.objects.of_save(save) > 256 * 256 * 4 for save in range(1, 4))


def test_after_its_base_was_condemned_the_attempt_saves_whole_again(world: World) -> None:
    world.objects = Counting()
    world.submit()

    def after(run: Any, step: int) -> None:
        settled(run, step)
        world.verify()
        if step == 3:
            for checkpoint in world.checkpoints:
                where = checkpoint.id
                world.store.record_verdict(RUN, Verdict(where.generation, where.save, False, "a shard is damaged"))

    fine_tune(world, 1, 7, after)

    sizes = [world.objects.of_save(save) for save in range(1, 8)]
    whole = [size > 256 * 256 * 4 for size in sizes]
    assert whole[0] and not any(whole[1:3])
    assert whole[3], "the save after the condemnation"
    first = world.checkpoints[0]
    assert first.usable


class Retiring:
    """A table in which what the first save after a time builds on is retired just before its commit."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.armed = False
        self.refused: list[Commit] = []

    def commit(self, commit: Commit, holder: str) -> None:
        if self.armed:
            self.armed = False
            [base] = [each for each in self.inner.checkpoints(RUN) if each.id in commit.builds_on]
            where = base.id
            self.inner.record_verdict(RUN, Verdict(where.generation, where.save, False, "a shard is damaged"))
            assert self.inner.retire(RUN, base, datetime.now(UTC))
            self.refused.append(commit)
        self.inner.commit(commit, holder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize(
    ("reason", "wishes"),
    [(SaveReason.CADENCE, {}), (SaveReason.CADENCE, {"lazy": True}), (SaveReason.FINAL, {})],
    ids=["at once", "lazy", "in place"],
)
def test_a_save_whose_base_is_retired_before_its_commit_is_sent_again_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, reason: SaveReason, wishes: dict[str, Any]
) -> None:
    monkeypatch.setattr(shards, "LIMIT", 2**20)
    world.objects = Counting()
    world.submit(Cadence(every_steps=2))
    table = Retiring(world.store)
    world.ports = wiring.Ports(table, world.objects, world.publisher)
    at = 5 if reason is SaveReason.FINAL else 4

    def after(run: Any, step: int) -> None:
        settled(run, step)
        world.verify()
        table.armed = table.armed or (step == at - 1 and not table.refused)

    model = fine_tune(world, 1, 5, after, **wishes)

    [refused] = table.refused
    again = next(c.commit for c in world.checkpoints if c.commit.step == at)
    assert refused.builds_on and (refused.step, refused.reason) == (at, reason)
    assert (again.reason, again.builds_on, again.save) == (reason, (), refused.save + 1)
    assert world.objects.of_save(again.save) == again.size > 256 * 256 * 4
    assert {shard.key.split("/")[4] for shard in manifest(world).shards} >= {f"{again.save:06d}"}
    world.hand_over(2)
    fresh, optimizer = adapter()
    run = world.attach(2, model=fresh, optimizer=optimizer)
    assert run.resumed_from == 5
    assert all(torch.equal(*each) for each in zip(fresh.parameters(), model.parameters(), strict=True))


def test_shards_that_took_turns_cannot_be_sent_again_and_the_next_save_builds_on_something_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LIMIT", 2**14)
    monkeypatch.setattr(taking, "room_for", lambda plan, most: plan.size // 2)
    world.objects = Counting()
    world.submit()
    table = Retiring(world.store)
    world.ports = wiring.Ports(table, world.objects, world.publisher)

    def after(run: Any, step: int) -> None:
        settled(run, step)
        world.verify()
        table.armed = table.armed or (step == 3 and not table.refused)

    fine_tune(world, 1, 6, after)

    [refused] = table.refused
    assert refused.step not in world.steps_committed()
    following = next(c.commit for c in world.checkpoints if c.commit.step == refused.step + 1)
    base = {each.save for each in following.builds_on}
    assert refused.builds_on[0].save not in base
    assert world.steps_committed()[-1] == 6


def test_a_frozen_parameter_that_was_changed_after_all_is_uploaded_anew(world: World) -> None:
    world.objects = Counting()
    world.submit()

    def after(run: Any, step: int) -> None:
        settled(run, step)
        world.verify()
        if step == 3:
            with torch.no_grad():
                next(iter(run._framework.models.values()))[0].weight.add_(1.0)

    model = fine_tune(world, 1, 6, after)

    assert world.objects.of_save(4) > 256 * 256 * 4
    world.hand_over(2)
    fresh, optimizer = adapter()
    world.attach(2, model=fresh, optimizer=optimizer)
    assert torch.equal(fresh[0].weight, model[0].weight)


def test_the_last_save_is_sent_from_where_the_arrays_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.submit(Cadence(every_steps=1000))
    parts = build(width=64)
    run = world.attach(1, **parts.attached())

    def never(*_: Any) -> None:
        raise AssertionError("nothing is copied for the last save")

    monkeypatch.setattr(run._framework, "stage", never)
    for _, batch in run.steps(total=3):
        run.step(one_step(parts, batch))
    run.close()

    assert world.steps_committed() == [3]
    world.hand_over(2)
    again = build(width=64)
    assert world.attach(2, **again.attached()).resumed_from == 3
    assert torch.equal(again.model[0].weight, parts.model[0].weight)


def test_a_last_save_that_is_broken_off_is_never_committed(world: World) -> None:
    world.submit(Cadence(every_steps=1000))
    held = Held()
    held.go.clear()
    world.ports = wiring.Ports(world.store, held, world.publisher)
    parts = build(width=64)
    run = world.attach(1, **parts.attached())
    session = run._session

    def interrupt(flight: Any, seconds: float) -> None:
        assert held.asked.acquire(timeout=20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _, batch in run.steps(total=3):
            session._wait_for = interrupt
            run.step(one_step(parts, batch))
    del session._wait_for
    held.go.set()
    assert session._saver.flight.over.wait(20)

    assert world.checkpoints == ()


@pytest.mark.parametrize("bound", [0, 1000, -5])
def test_a_bound_that_cannot_work_is_refused_at_once(world: World, bound: int) -> None:
    world.submit()

    with pytest.raises(Exception, match="staging_bytes"):
        world.attach(1, **build().attached(), staging_bytes=bound)


class Dead(UploadProcess):
    """A process that never comes up."""

    def start(self) -> None:
        raise Unavailable("the upload process cannot be started: no memory")

    def ask(self, buffer: Any, request: dict[str, Any]) -> dict[str, Any]:
        raise Unavailable("the upload process cannot be started: no memory")


def test_training_goes_on_where_the_upload_process_cannot_be_started_and_its_end_is_committed(world: World) -> None:
    world.submit(Cadence(every_steps=2))
    world.ports = wiring.Ports(world.store, world.objects, world.publisher, Dead("us-east-1", "bucket"))

    outcome = train(lambda **given: world.attach(1, **given), build(), 6)

    assert len(outcome.losses) == 6
    assert world.steps_committed() == [6]
