"""A notice, SIGTERM, a recommendation: what the attempt does with the time that is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.errors import Unavailable
from spotrelay.core.live import ASK_DRAIN, EXIT_DRAINED, EXIT_FENCED, Phase
from spotrelay.core.ports import Body
from spotrelay.core.spec import Cadence
from tests.shim.cluster import Cluster
from tests.shim.imds import Imds, serving
from tests.shim.training import STEPS, build, train
from tests.shim.world import RUN, World, eventually, left_with
from trainer_shim import wiring
from trainer_shim.checkpointer import Checkpointer

RARELY = Cadence(every_steps=1000)


@pytest.fixture
def imds(world: World) -> Iterator[Imds]:
    with serving() as served:
        world.metadata = served.endpoint
        yield served


def train_until_told(world: World, tell: Any, at: int = 5) -> list[int]:
    """Train attempt 1; `tell` is called after a step, then steps go on until the run leaves."""
    done: list[int] = []

    def after(run: Any, steps: int) -> None:
        done.append(steps)
        if steps == at:
            tell(run)
        assert steps < 100_000

    with left_with(EXIT_DRAINED):
        train(lambda **given: world.attach(1, **given), build(), 100_000, after)
    return done


def noticed(run: Any) -> None:
    eventually(lambda: run._session._watcher.ending, "the notice was seen")


def announcing(imds: Imds) -> Callable[[Any], None]:
    """Make the service announce an interruption, and wait until it was seen."""

    def announce(run: Any) -> None:
        imds.announce()
        noticed(run)

    return announce


def reported(world: World) -> list[str]:
    return [each["what"] for each in world.publisher.of("Attempt Reported")]


def test_a_word_of_the_control_plane_drains_the_run_and_there_is_time_for_a_save(world: World) -> None:
    world.submit(RARELY)

    def ask(run: Any) -> None:
        world.store.ask(RUN, 1, ASK_DRAIN)
        noticed(run)
        left_s = run._session._watcher.ending.deadline - time.monotonic()
        assert left_s > 5 * run._session.identity.timings.notice.total_seconds()

    done = train_until_told(world, ask)

    assert done[-1] == 5
    assert world.steps_committed() == [5]
    assert world.store.read_lease(RUN).holder is None
    assert {"released", "drained"} <= set(reported(world))


def test_a_notice_drains_the_run_at_the_next_step(world: World, imds: Imds) -> None:
    world.submit(RARELY)

    def announce(run: Any) -> None:
        imds.announce(left=timedelta(seconds=2))
        noticed(run)

    done = train_until_told(world, announce)

    assert done[-1] == 5
    assert world.steps_committed() == [5]
    assert world.reasons() == [SaveReason.NOTICE]
    assert world.store.read_lease(RUN).holder is None
    [seen] = world.publisher.of("Interruption Notice Seen")
    assert (seen["run_id"], seen["generation"], seen["instance-id"]) == (RUN, 1, "i-00000001")
    assert seen["action"] == "terminate"
    assert {"first-step", "released", "drained"} <= set(reported(world))
    beat = world.store.load(RUN).heartbeat(1)
    assert beat is not None
    assert beat.phase is Phase.DRAINED


def test_the_drained_run_is_continued_at_the_very_step(world: World, imds: Imds) -> None:
    world.submit(RARELY)
    train_until_told(world, announcing(imds))
    imds.said.clear()
    world.verify()  # no fence: the lease was given back

    assert world.attach(2, **build().attached(), extra={}).resumed_from == 5


def end_at_once(run: Any) -> None:
    run._session._watcher.end(timedelta(seconds=5), "EC2 is going to terminate this machine")


def test_a_notice_between_a_loop_of_the_scripts_own_and_steps_saves_nothing_under_an_older_step(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.submit(RARELY)
    parts = build()
    run = world.attach(1, **parts.attached())
    for _ in range(3):
        spoil(parts.model)
        run.step(1.0)
    end_at_once(run)

    with left_with(EXIT_DRAINED):
        next(run.steps(total=STEPS))
    run.close()  # has nothing left to say

    assert world.checkpoints == ()
    assert world.store.read_lease(RUN).holder is None
    assert "draining after step 3" in caplog.text
    assert "steps after 0 were not committed in time" in caplog.text


def test_a_notice_after_a_loop_that_an_error_ended_keeps_what_was_saved_and_saves_no_half_step(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.submit(Cadence(every_steps=3))
    parts = build()
    run = world.attach(1, **parts.attached())
    with pytest.raises(ZeroDivisionError):
        for step, _ in run.steps(total=STEPS):
            spoil(parts.model)
            if step == 4:
                raise ZeroDivisionError
            run.step(1.0)
    end_at_once(run)

    with left_with(EXIT_DRAINED):
        next(run.steps(total=STEPS))
    run.close()  # has nothing left to say

    assert world.steps_committed() == [3]
    assert "draining after step 4" in caplog.text
    world.verify()
    assert world.attach(2, **build().attached()).resumed_from == 3


def spoil(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


def test_sigterm_is_latched_and_drains(world: World) -> None:
    world.submit(RARELY)
    before = signal.getsignal(signal.SIGTERM)

    train_until_told(world, lambda run: os.kill(os.getpid(), signal.SIGTERM))

    assert world.steps_committed() == [5]
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_during_a_long_step_is_not_missed(world: World) -> None:
    world.submit(RARELY)

    def slow_step(run: Any) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        eventually(lambda: run._session._watcher.ending, "SIGTERM was latched inside the step")

    train_until_told(world, slow_step)

    assert world.steps_committed() == [5]


def test_a_save_that_cannot_be_over_in_time_is_not_begun(world: World, imds: Imds) -> None:
    world.submit(RARELY)

    def announce(run: Any) -> None:
        run._session._saver.costs = run._session._saver.costs.__class__(durable_s=60.0)
        imds.announce()
        noticed(run)

    train_until_told(world, announce)

    assert world.steps_committed() == []
    assert world.store.read_lease(RUN).holder is None


def test_what_to_do_with_a_notice_is_decided_within_fifty_milliseconds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(RARELY)
    times: dict[str, float] = {}
    begin = Checkpointer.begin

    def begun(self: Checkpointer, *given: Any) -> Any:
        times["decided"] = time.monotonic()
        return begin(self, *given)

    def announce(run: Any) -> None:
        run._session._watcher.end(timedelta(seconds=5), "EC2 is going to terminate this machine")
        times["boundary"] = time.monotonic()

    monkeypatch.setattr(Checkpointer, "begin", begun)
    train_until_told(world, announce)

    assert world.steps_committed() == [5]
    assert times["decided"] - times["boundary"] < 0.05


def test_a_bucket_that_hangs_does_not_hold_a_drain_beyond_its_deadline(world: World, imds: Imds) -> None:
    class Hanging:
        def put(self, key: str, body: Body, checksum: str = "") -> Any:
            raise Unavailable("no answer")

        def __getattr__(self, name: str) -> Any:
            return getattr(world.objects, name)

    world.submit(RARELY)
    world.ports = wiring.Ports(world.store, Hanging(), world.publisher)
    begun = []

    def announce(run: Any) -> None:
        imds.announce(left=timedelta(seconds=1))
        noticed(run)
        begun.append(time.monotonic())

    train_until_told(world, announce)

    assert time.monotonic() - begun[0] < 6
    assert world.steps_committed() == []
    assert world.store.read_lease(RUN).holder is None


def test_an_attempt_that_was_replaced_meanwhile_says_so_instead_of_draining(world: World, imds: Imds) -> None:
    world.submit(RARELY)

    def after(run: Any, steps: int) -> None:
        if steps == 3:
            world.store.fence(RUN, 2)
            imds.announce()
            noticed(run)

    with left_with(EXIT_FENCED):
        train(lambda **given: world.attach(1, **given), build(), STEPS, after)

    assert world.steps_committed() == []


def test_a_notice_while_the_lease_is_waited_for_ends_the_attempt_before_its_first_step(
    world: World, imds: Imds
) -> None:
    world.submit()
    world.store.take_lease(RUN, 1, "i-elder")
    threading.Timer(0.3, imds.announce).start()

    with left_with(EXIT_DRAINED):
        world.attach(2, **build().attached())

    assert world.store.read_lease(RUN).holder == "i-elder"
    assert "drained" in reported(world)


def test_a_recommendation_makes_a_checkpoint_at_once_and_no_end(world: World, imds: Imds) -> None:
    world.submit(Cadence(floor_s=1000, ceiling_s=2000))

    def after(run: Any, steps: int) -> None:
        if steps == 5:
            imds.recommend()
            eventually(lambda: run._session._watcher._rebalance, "the recommendation was seen")
        if steps in (6, 7):
            flight = run._session._saver.flight
            assert flight is None or flight.over.wait(10)

    train(lambda **given: world.attach(1, **given), build(), STEPS, after)

    assert world.reasons() == [SaveReason.REBALANCE, SaveReason.FINAL]
    assert world.steps_committed() == [5, STEPS]
    assert len(world.publisher.of("Rebalance Recommendation Seen")) == 1


def test_a_service_that_fails_for_a_while_is_asked_again(world: World, imds: Imds) -> None:
    world.submit(RARELY)
    imds.failures = [503, 500, 401, 503]

    train_until_told(world, announcing(imds))

    assert world.steps_committed() == [5]


def test_a_process_told_to_terminate_drains_with_its_workers_alive(cluster: Cluster) -> None:
    cluster.scale = 0.3  # nine seconds after SIGTERM
    ended = cluster.attempt(1, workers=2, terminate_at=6, pace_s=0.01)
    cluster.hand_over(2)

    resumed = cluster.attempt(2, workers=2)

    assert ended.status == EXIT_DRAINED, ended.said
    assert cluster.live.read_lease(cluster.run_id).generation == 2
    assert max(c.commit.step for c in cluster.checkpoints if c.id.generation == 1) == 6
    assert resumed.status == 0, resumed.said
    whole = cluster.nursery.run({}, {"total": cluster.total, "workers": 2}).outcome
    assert resumed.outcome is not None and whole is not None
    assert resumed.outcome["digest"] == whole["digest"]
