"""A bucket that takes its time: bounded memory, a cadence that adapts, never two checkpoints under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.live import EXIT_DRAINED
from spotrelay.core.spec import Cadence
from tests.shim.training import build, train
from tests.shim.world import RUN, World, eventually, left_with
from trainer_shim import wiring

SLOW_S = 0.4  # one checkpoint


class Throttled:
    """Objects behind a thin line: each byte of a checkpoint has to wait for the ones before it."""

    def __init__(self, world: World, bytes_per_s: float) -> None:
        self._objects = world.objects
        self._bytes_per_s = bytes_per_s
        self._never = threading.Event()
        self.most_writers = 0
        self.shards: set[str] = set()

    def put(self, key: str, body: Any, *more: Any) -> Any:
        save = key.split("/")[4] if "/shards/" in key else ""
        if save:
            self.shards.add(save)
            self.most_writers = max(self.most_writers, len(self.shards))
            self._never.wait(len(body) / self._bytes_per_s)
        else:
            self.shards.clear()  # its manifest: this checkpoint's shards are durable
        return self._objects.put(key, body, *more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


def size_of_state(world: World) -> int:
    """Bytes of one checkpoint of the training used here."""
    world.submit(Cadence(every_steps=1000))
    train(lambda **given: world.attach(1, **given), build(), 2)
    return world.checkpoints[0].commit.size


@pytest.fixture
def throttled(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], Throttled]:
    size = size_of_state(World(monkeypatch))

    def make(world: World) -> Throttled:
        made = Throttled(world, size / SLOW_S)
        world.ports = wiring.Ports(world.store, made, world.publisher)  # type: ignore[arg-type]  # a proxy
        return made

    return make


def test_a_slow_bucket_never_has_two_checkpoints_and_gets_them_less_often(
    world: World, throttled: Callable[[World], Throttled]
) -> None:
    bucket = throttled(world)
    world.submit(Cadence(floor_s=1.0, ceiling_s=2.0))  # 20 and 40 ms on the tests' clock: far below what it can
    buffers: set[int] = set()
    spans: list[float] = []

    def after(run: Any, steps: int) -> None:
        saver = run._session._saver
        flight = saver.flight
        if flight is not None:
            spans.append(flight.snapshot.taken_at)
            buffers.add(saver._taker.staging.generation)
        if len(set(spans)) >= 4:
            return
        threading.Event().wait(0.01)

    train(lambda **given: world.attach(1, **given), build(), 250, after)

    begun = sorted(set(spans))
    assert len(begun) >= 3
    assert bucket.most_writers == 1
    assert len(buffers) <= 2  # the optimizer's arrays come with the first step; after that it is one and the same
    adapted = [later - earlier for earlier, later in pairwise(begun[1:])]
    assert min(adapted) >= SLOW_S * 1.2


def test_a_save_under_way_is_finished_from_memory_while_a_long_step_goes_on(
    world: World, throttled: Callable[[World], Throttled]
) -> None:
    throttled(world)
    world.submit(Cadence(every_steps=5))
    still_in_the_step: list[bool] = []

    def after(run: Any, steps: int) -> None:
        if steps == 4:
            saver = run._session._saver
            saver.costs = replace(saver.costs, durable_s=SLOW_S)
        if steps == 6:  # the save of step 5 is under way; this step does not end before the lease is gone
            assert run._session._saver.flight is not None
            run._session._watcher.end(timedelta(seconds=SLOW_S * 1.6), "EC2 is going to terminate this machine")
            eventually(lambda: world.store.read_lease(RUN).holder is None, "the lease was given back")
            still_in_the_step.append(True)

    with left_with(EXIT_DRAINED):
        train(lambda **given: world.attach(1, **given), build(), 1000, after)

    assert still_in_the_step == [True]
    assert world.steps_committed() == [5]
    assert world.reasons() == [SaveReason.CADENCE]
    assert {"released", "drained"} <= {each["what"] for each in world.publisher.of("Attempt Reported")}
