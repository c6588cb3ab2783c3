"""Loops that end before their total: by break or return the last state is saved, by an error it is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.live import EXIT_FENCED, Phase
from spotrelay.core.spec import Cadence
from tests.shim.training import build, digest
from tests.shim.world import RUN, World, left_with

ROOT = Path(__file__).parents[2]
SELDOM = Cadence(every_steps=1000)


class Bar:
    """A progress bar as one finds them: it keeps what it iterates over."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        try:
            for each in self.inner:  # noqa: UP028 - as they are written
                yield each
        finally:
            self.ended = True


def attached(world: World, generation: int = 1) -> Any:
    world.submit(SELDOM)
    return world.attach(generation, **build().attached())


def test_break_saves_the_state_of_the_last_step_and_a_resume_goes_on_after_it(world: World) -> None:
    world.submit(SELDOM)
    parts = build()
    run = world.attach(1, **parts.attached())
    for step, (inputs, wanted) in run.steps(total=100_000):
        loss = torch.nn.functional.cross_entropy(parts.model(inputs), wanted)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation
        parts.optimizer.step()
        run.step(loss)
        if step == 6:
            break

    assert world.steps_committed() == [7]  # at once, not only when the run is closed
    assert world.reasons() == [SaveReason.FINAL]
    run.close()
    beat = world.store.load(RUN).heartbeat(1)
    assert beat is not None and beat.phase is Phase.DONE
    world.hand_over(2)
    again = build()
    assert world.attach(2, **again.attached()).step_number == 7
    assert digest(again.model) == digest(parts.model)


def returns(run: Any) -> int:
    for step, _ in run.steps(total=100):
        run.step(1.0)
        if step == 4:
            return 5
    raise AssertionError("never reached")


def numbered(run: Any) -> int:
    for count, _ in enumerate(run.steps(total=100), start=1):
        run.step(1.0)
        if count == 5:
            break
    return 5


def under_a_bar(run: Any) -> int:
    for step, _ in Bar(run.steps(total=100)):
        run.step(1.0)
        if step == 4:
            break
    return 5


def under_a_bar_that_is_kept(run: Any) -> int:
    bar = Bar(run.steps(total=100))
    for step, _ in bar:
        run.step(1.0)
        if step == 4:
            break
    run.close()
    return 5


def in_a_with_block(run: Any) -> int:
    kept = run.steps(total=100)
    with run:
        for step, _ in kept:
            run.step(1.0)
            if step == 4:
                break
    return 5


@pytest.mark.parametrize("leave", [returns, numbered, under_a_bar, under_a_bar_that_is_kept, in_a_with_block])
def test_every_usual_way_to_stop_early_saves_the_last_state(world: World, leave: Any) -> None:
    run = attached(world)

    steps = leave(run)

    assert world.steps_committed() == [steps] == [run.step_number]


def test_a_batch_that_was_left_before_its_step_counts_for_none(world: World) -> None:
    run = attached(world)
    for step, _ in run.steps(total=100):
        if step == 3:
            break
        run.step(1.0)

    assert world.steps_committed() == [3]


def fails(run: Any) -> None:
    for step, _ in run.steps(total=100):
        run.step(1.0)
        if step == 3:
            raise ValueError("wrong")


def fails_in_a_call(run: Any) -> None:
    for step, _ in Bar(run.steps(total=100)):
        run.step(1.0)
        if step == 3:
            int("wrong")


def fails_past_a_handler(run: Any) -> None:
    for step, _ in enumerate(run.steps(total=100)):
        run.step(1.0)
        try:
            if step == 3:
                int("wrong")
        except KeyError:
            break


def fails_in_a_with_block(run: Any) -> None:
    kept = run.steps(total=100)
    with run:
        for step, _ in kept:
            run.step(1.0)
            if step == 3:
                int("wrong")


@pytest.mark.parametrize("body", [fails, fails_in_a_call, fails_past_a_handler, fails_in_a_with_block])
def test_an_error_in_the_body_is_no_finish_even_if_the_script_survives_it(
    world: World, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    run = attached(world)

    with caplog.at_level("INFO"), pytest.raises(ValueError, match="wrong"):
        body(run)
    run.close()

    assert world.steps_committed() == []
    assert "by an error" in caplog.text


def test_close_while_an_error_is_handled_saves_nothing(world: World) -> None:
    run = attached(world)
    kept = run.steps(total=100)

    with pytest.raises(ValueError, match="wrong"):
        try:
            for _ in kept:
                run.step(1.0)
                int("wrong")
        finally:
            run.close()

    assert world.steps_committed() == []


def test_who_was_replaced_while_breaking_off_is_told_at_the_close(world: World) -> None:
    run = attached(world)
    for step, _ in run.steps(total=100):
        run.step(1.0)
        if step == 3:
            world.store.fence(RUN, 2)
            break

    with left_with(EXIT_FENCED):
        run.close()

    assert world.steps_committed() == []


def test_two_stages_of_which_the_first_is_broken_off_are_resumed_in_the_second(world: World) -> None:
    run = attached(world)
    for step, _ in run.steps(total=100):
        run.step(1.0)
        if step == 2:
            break
    for step, _ in run.steps(total=200):
        run.step(1.0)
        if step == 6:
            break
    run.close()
    world.hand_over(2)
    again = world.attach(2, **build().attached())

    assert list(again.steps(total=100)) == []
    assert next(iter(again.steps(total=200)))[0] == 7


def test_the_last_state_is_saved_where_no_thread_can_be_had_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attached(world)

    def ending(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    for step, _ in run.steps(total=100):
        run.step(1.0)
        if step == 3:
            monkeypatch.setattr(threading.Thread, "start", ending)
            break

    assert world.steps_committed() == [4]


SCRIPT = """
import sys, torch, trainer_shim
from spotrelay.core.spec import Cadence
from spotrelay.testing import MemoryObjects, MemoryPublisher, MemoryStore
from tests.shim.world import RUN, new_run
from trainer_shim import session, wiring

store = MemoryStore()
store.create(new_run(Cadence(every_steps=1000)))
wiring.connect = lambda identity: wiring.Ports(store, MemoryObjects(), MemoryPublisher())
commit = store.commit
def told(sent, holder):
    if "fenced" in sys.argv:
        store.fence(RUN, 2)
    commit(sent, holder)
    print("committed", sent.step, flush=True)
store.commit = told
run = trainer_shim.attach(model=torch.nn.Linear(2, 2))
steps = run.steps([1, 2, 3], total=100)  # kept to the end of the process
for step, _ in steps:
    run.step(1.0)
    if step == 3:
        if "fails" in sys.argv:
            raise ValueError("wrong")
        break
"""


@pytest.mark.parametrize(
    ("how", "status", "committed"), [("ends", 0, "committed 4\n"), ("fails", 1, ""), ("fenced", EXIT_FENCED, "")]
)
def test_a_script_that_keeps_its_loop_to_the_end_is_saved_or_ends_with_the_true_status(
    how: str, status: int, committed: str
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOTRELAY_", "AWS_"))}
    environment = {**kept, "PYTHONPATH": str(ROOT), **World(pytest.MonkeyPatch()).environ()}

    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (answer.returncode, answer.stdout) == (status, committed), answer.stderr


def test_a_forked_process_neither_saves_nor_ends_the_run(world: World) -> None:
    world.submit()
    parts = build()
    run = world.attach(1, **parts.attached())
    steps = run.steps(total=4)
    next(steps)
    run.step(0.5)
    child = os.fork()
    if child == 0:
        try:
            next(steps)
        except RuntimeError:
            run.close()
            os._exit(33)
        os._exit(0)

    _, status = os.waitpid(child, 0)
    for _ in steps:
        run.step(0.5)

    assert os.waitstatus_to_exitcode(status) == 33
    assert world.checkpoints[0].commit.step == 4
