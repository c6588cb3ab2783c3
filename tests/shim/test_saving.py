"""Checkpoints while the world misbehaves: training goes on, and what is said about them is true."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import Health, SaveReason, decode_manifest
from spotrelay.core.errors import OutcomeUnknown, Unavailable
from spotrelay.core.live import EXIT_FENCED, Phase
from spotrelay.core.ports import Body, StoredObject
from spotrelay.core.spec import Cadence
from spotrelay.testing import Fault, Script, faulty
from tests.shim.training import STEPS, build, digest, train
from tests.shim.world import RUN, World, eventually, left_with
from trainer_shim import shards, wiring
from trainer_shim.frameworks import torch_staging
from trainer_shim.frameworks.torch_kinds import described
from trainer_shim.tree import flatten


def ports(world: World, store: Any = None, objects: Any = None) -> wiring.Ports:
    return wiring.Ports(store or world.store, objects or world.objects, world.publisher)


def run_through(world: World, total: int = STEPS, **parts: Any) -> Any:
    return train(lambda **given: world.attach(1, **given), build(**parts), total)


def settled(run: Any, steps: int) -> None:
    """Let the save of this step come to its end before the next step begins."""
    flight = run._session._saver.flight
    assert flight is None or flight.over.wait(20)


def trained(world: World, total: int) -> Any:
    return train(lambda **given: world.attach(1, **given), build(), total, settled)


def test_the_last_state_is_committed_before_the_loop_ends(world: World) -> None:
    world.submit(Cadence(every_steps=1000))

    run_through(world)

    assert world.steps_committed() == [STEPS]
    assert world.reasons() == [SaveReason.FINAL]
    beat = world.store.load(RUN).heartbeat(1)
    assert beat is not None
    assert (beat.phase, beat.step, beat.first_step) == (Phase.DONE, STEPS, True)


def test_every_commit_is_announced_and_holds_what_it_says(world: World) -> None:
    world.submit()

    run_through(world, 10)

    said = [(each["generation"], each["save"]) for each in world.publisher.of("Checkpoint Committed")]
    assert said == [(c.id.generation, c.id.save) for c in reversed(world.checkpoints)]
    commit = world.checkpoints[0].commit
    manifest = decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))
    assert (manifest.step, manifest.run_id, manifest.threads) == (10, RUN, torch.get_num_threads())
    assert set(manifest.versions) >= {"python", "torch", "numpy", "spotrelay"}
    assert commit.size == sum(shard.size for shard in manifest.shards)
    assert commit.durable_s > commit.stall_s > 0


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.THROTTLE, Fault.UNAVAILABLE])
@pytest.mark.parametrize("call", ["put", "commit"])
def test_a_request_that_fails_once_is_made_again_and_nothing_is_written_twice(
    world: World, call: str, fault: Fault
) -> None:
    world.submit(Cadence(every_steps=1000))
    script = Script({call: [fault]})
    world.ports = ports(world, faulty(world.store, script), faulty(world.objects, script))

    run_through(world)

    assert world.steps_committed() == [STEPS]
    versions = list(world.objects.list_versions(""))
    assert len(versions) == len({each.key for each in versions}) == 2
    world.hand_over(2)
    assert world.attach(2, **build().attached(), extra={}).resumed_from == STEPS


def test_a_commit_whose_reply_was_lost_before_the_attempt_was_replaced_is_known_to_have_happened(
    world: World,
) -> None:
    """The zombie's story: committed, reply lost, fenced, and only then asked again."""
    world.submit(Cadence(every_steps=1000))

    class Fencing:
        def __init__(self) -> None:
            self.tries = 0

        def commit(self, commit: Any, holder: str) -> None:
            self.tries += 1
            world.store.commit(commit, holder)
            if self.tries == 1:
                world.store.fence(RUN, 2)
                raise OutcomeUnknown("the reply was lost")

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

    store = Fencing()
    world.ports = ports(world, store)

    run_through(world)

    assert store.tries == 2
    assert world.steps_committed() == [STEPS]


def test_a_zombie_is_refused_at_the_commit_and_stops(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.submit()

    def replaced(run: Any, steps: int) -> None:
        settled(run, steps)
        if steps == 4:
            world.store.fence(RUN, 2)

    with left_with(EXIT_FENCED), caplog.at_level("INFO"):
        train(lambda **given: world.attach(1, **given), build(), STEPS, replaced)

    assert world.steps_committed()[-1] <= 4
    assert "does not hold the lease" in caplog.text
    assert "goes on elsewhere" in caplog.text


class Blocked:
    """A bucket that keeps every put waiting until it is opened."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.open = threading.Event()
        self.at_once = 0
        self.most = 0
        self._lock = threading.Lock()

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.open.wait(30)
        with self._lock:
            self.at_once -= 1
        return self._world.objects.put(key, body, checksum)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.objects, name)


def test_a_slow_bucket_never_holds_up_a_step_and_one_save_is_under_way_at_most(world: World) -> None:
    world.submit()
    slow = Blocked(world)
    world.ports = ports(world, objects=slow)

    def open_at_the_end(run: Any, steps: int) -> None:
        if steps == STEPS:
            assert world.steps_committed() == []
            slow.open.set()

    train(lambda **given: world.attach(1, **given), build(), STEPS, open_at_the_end)

    assert slow.most == 1
    assert world.steps_committed() == [1, STEPS]


class Broken:
    """A bucket that refuses every shard of the first save, and everything while it is broken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken = True

    def put(self, key: str, body: Body, checksum: str = "") -> StoredObject:
        if self.broken or "shards/000001/000001/" in key:
            raise Unavailable("the bucket does not answer")
        return self._world.objects.put(key, body, checksum)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.objects, name)


def test_a_broken_bucket_stops_nothing_is_reported_and_a_later_save_replaces_the_stuck_one(world: World) -> None:
    world.submit()
    bucket = Broken(world)
    world.ports = ports(world, objects=bucket)

    def mend(run: Any, steps: int) -> None:
        if steps == 10:
            eventually(lambda: "does not answer" in trouble(world), "the heartbeat told of it")
            bucket.broken = False
        flight = run._session._saver.flight
        if steps > 10 and flight is not None and (flight.cancelled or not flight.trouble):
            flight.over.wait(5)

    train(lambda **given: world.attach(1, **given), build(), STEPS, mend)

    assert world.steps_committed()[0] < STEPS
    assert world.steps_committed()[-1] == STEPS
    saves = [c.id.save for c in reversed(world.checkpoints)]
    assert 1 not in saves
    assert saves == sorted(set(saves))
    assert trouble(world) == ""


def trouble(world: World) -> str:
    beat = world.store.load(RUN).heartbeat(1)
    return beat.trouble if beat is not None else ""


def test_a_broken_table_stops_no_step_either(world: World) -> None:
    world.submit()
    world.ports = ports(
        world, faulty(world.store, Script({"commit": [Fault.UNAVAILABLE] * 3, "beat": [Fault.UNAVAILABLE] * 8}))
    )

    run_through(world)

    assert world.steps_committed()[-1] == STEPS


def test_keys_of_an_earlier_process_of_the_attempt_are_never_reused(world: World) -> None:
    """The first process died after it had put its manifest; the second has other bytes under that number."""
    world.submit(Cadence(every_steps=1000))
    world.objects.put(f"runs/{RUN}/manifests/000001/000001.json", b"somebody else's")

    run_through(world)

    assert [c.id.save for c in world.checkpoints] == [2]
    world.hand_over(2)
    assert world.attach(2, **build().attached(), extra={}).resumed_from == STEPS


def test_a_loss_that_is_not_a_number_makes_a_bad_checkpoint(world: World) -> None:
    world.submit()
    parts = build()
    run = world.attach(1, **parts.attached())
    for step, _ in run.steps(total=4):
        settled(run, step)
        run.step(float("nan") if step == 2 else 1.0)

    healths = {c.commit.step: c.commit.health for c in world.checkpoints}
    assert healths[3] is Health.BAD
    assert healths[2] is Health.HEALTHY


def test_infinities_in_a_buffer_are_no_illness(world: World) -> None:
    world.submit(Cadence(every_steps=1000))
    parts = build()
    parts.model.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))

    train(lambda **given: world.attach(1, **given), parts, 3)

    assert world.checkpoints[0].commit.health is Health.HEALTHY


def test_tied_weights_are_written_once_and_come_back_tied(world: World) -> None:
    world.submit(Cadence(every_steps=1000))

    def tied() -> Any:
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False), torch.nn.Linear(32, 32, bias=False))
        model[1].weight = model[0].weight
        return model

    model = tied()
    run = world.attach(1, model=model)
    for _ in run.steps([1, 2], total=2):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        run.step(0.5)
    run.close()
    world.hand_over(2)
    again = tied()
    world.attach(2, model=again)

    assert digest(again) == digest(model)
    assert again[0].weight is again[1].weight
    commit = world.checkpoints[0].commit
    manifest = decode_manifest(world.objects.get(commit.manifest_key, commit.manifest_version))
    assert [name for name in manifest.tree["arrays"] if "weight" in name] == ["models/model/0.weight"]


ODD: dict[str, Any] = {
    "half": torch.randn(5).half(),
    "bfloat": torch.randn(5).bfloat16(),
    "float8": torch.randn(8).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False]),
    "complex": torch.randn(3, dtype=torch.complex64),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "small": torch.tensor(3, dtype=torch.int8),
    "nothing": torch.empty(0, 4),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "turned": torch.randn(6, 4).t(),
    "strided": torch.randn(20)[::3],
    "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    "negative": torch._neg_view(torch.randn(4)),
    "plain": [1, 2.5, None, "x", (1, 2), {3: b"x" * 1000}],
}


def bits(value: torch.Tensor) -> list[int]:
    return list(value.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8).tolist())


@pytest.mark.parametrize("name", [name for name, value in ODD.items() if isinstance(value, torch.Tensor)])
def test_every_kind_of_tensor_is_copied_as_its_elements_are(name: str) -> None:
    value = ODD[name]
    _, leaves = flatten({"x": value}, lambda each, path: described(each, path, lambda *_: ""))
    plan = shards.plan(leaves)
    memory = memoryview(bytearray(plan.size))

    torch_staging.Stager().stage(leaves, plan, 0, memory)

    [piece] = plan.shards[0].pieces
    assert list(memory[piece.offset : piece.offset + piece.size]) == bits(value)


def test_every_kind_of_value_in_extra_comes_back_as_it_was(world: World) -> None:
    world.submit(Cadence(every_steps=1000))
    run = world.attach(1, model=build().model, extra=dict(ODD))
    for _ in run.steps([1], total=1):
        run.step(1.0)
    run.close()
    world.hand_over(2)
    extra: dict[str, Any] = {"will": "go"}

    world.attach(2, model=build().model, extra=extra)

    assert set(extra) == set(ODD)
    for name, value in ODD.items():
        if isinstance(value, torch.Tensor):
            assert extra[name].dtype == value.dtype
            assert extra[name].shape == value.shape
            assert bits(extra[name]) == bits(value)
        else:
            assert extra[name] == value


def test_a_large_array_is_cut_into_shards_and_joined_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT", 1000)
    world.submit(Cadence(every_steps=1000))
    extra = {"large": torch.randn(3000), "turned": torch.randn(50, 60).t()}
    run = world.attach(1, model=build().model, extra=dict(extra))
    for _ in run.steps([1], total=1):
        run.step(1.0)
    run.close()
    world.hand_over(2)
    again: dict[str, Any] = {}

    world.attach(2, model=build().model, extra=again)

    assert all(torch.equal(again[name], value) for name, value in extra.items())
    assert len(world.shards(world.checkpoints[0])) > 20


def test_what_no_checkpoint_can_hold_is_refused_at_attach_by_name(world: World) -> None:
    from spotrelay.core.errors import InvalidInput

    world.submit()
    with pytest.raises(InvalidInput, match="extra/opened"):
        world.attach(1, model=build().model, extra={"opened": object()})


def test_the_staging_buffer_is_allocated_once(world: World) -> None:
    world.submit()
    parts = build()
    run = world.attach(1, **parts.attached())
    sizes = set()
    for step, (inputs, wanted) in run.steps(total=8):
        loss = torch.nn.functional.cross_entropy(parts.model(inputs), wanted)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        parts.optimizer.step()
        run.step(loss)
        settled(run, step)
        if step > 2:
            sizes.add((run._session._saver._taker.staging.generation, run._session._saver._taker.staging.size))

    assert len(sizes) == 1


def test_two_loops_in_a_row_are_resumed_in_the_right_one(world: World) -> None:
    world.submit()
    batches = [torch.tensor([float(n)]) for n in range(5)]

    def script(generation: int, stop_at: int | None) -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []
        run = world.attach(generation, model=build().model)
        for total in (4, 9):
            for step, batch in run.steps(batches, total=total):
                settled(run, step)
                if step == stop_at:
                    flight = run._session._saver.flight
                    assert flight is None or flight.over.wait(10)
                    return seen
                seen.append((step, float(batch)))
                run.step(1.0)
        return seen

    whole = [(n, float(n)) for n in range(4)] + [(n + 4, float(n)) for n in range(5)]
    first = script(1, 7)
    world.hand_over(2)

    assert first + script(2, None) == whole


def test_a_step_that_was_never_called_is_an_error_that_says_so(world: World) -> None:
    world.submit()
    run = world.attach(1, model=build().model)

    with pytest.raises(RuntimeError, match=r"run\.step\(loss\) was not called for step 0"):
        for _ in run.steps([1, 2, 3], total=3):
            pass


def test_a_step_that_is_called_twice_is_an_error_that_says_so(world: World) -> None:
    world.submit()
    run = world.attach(1, model=build().model)

    with pytest.raises(RuntimeError, match="twice"):
        for _ in run.steps([1, 2, 3], total=3):
            run.step(1.0)
            run.step(1.0)


def test_no_checkpoint_is_taken_while_gradients_accumulate(world: World) -> None:
    world.submit()
    run = world.attach(1, model=build().model)
    for step, _ in run.steps([1, 2, 3], total=9):
        run.step(1.0, accumulating=step % 3 != 2)
        settled(run, step)

    assert set(world.steps_committed()) <= {3, 6, 9}


def test_an_empty_loader_is_an_error_rather_than_an_endless_loop(world: World) -> None:
    world.submit()
    run = world.attach(1, model=build().model)

    with pytest.raises(ValueError, match="no batch"):
        list(run.steps([], total=3))


def test_a_loop_of_ones_own_is_saved_too(world: World) -> None:
    world.submit()
    model = build().model
    run = world.attach(1, model=model)
    for _ in range(4):
        run.step(1.0)
        settled(run, 0)
    run.close()
    world.hand_over(2)

    assert world.attach(2, model=build().model).step_number == max(world.steps_committed())


def test_close_gives_a_save_under_way_its_time(world: World) -> None:
    world.submit()
    slow = Blocked(world)
    world.ports = ports(world, objects=slow)
    with world.attach(1, model=build().model) as run:
        run.step(1.0)
        threading.Timer(0.3, slow.open.set).start()

    assert world.steps_committed() == [1]


def test_the_training_thread_is_blocked_for_the_copy_only(world: World) -> None:
    world.submit(Cadence(every_steps=1000))
    model = torch.nn.Linear(2000, 2000)
    run = world.attach(1, model=model)
    begun = time.monotonic()
    for _ in run.steps([1], total=1):
        run.step(1.0)
    took = time.monotonic() - begun

    assert world.checkpoints[0].commit.stall_s < took
    assert world.checkpoints[0].commit.stall_s < 1.0
