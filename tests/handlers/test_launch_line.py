"""Launches beyond EC2's rate stand in line, and each goes once, in its turn."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.control import ControlPlane
from handlers.settings import LAUNCHES_POSTPONED
from spotrelay.core.errors import Contention
from spotrelay.core.facts import LaunchPostponed
from spotrelay.core.line import Pace, Turn
from spotrelay.core.record import record
from spotrelay.testing import MemoryLine, MemoryMachines, RequestRate
from tests.handlers.plane import ListQueue, World

SECOND = timedelta(seconds=1)


class Crowd(World):
    """Two launches at once, one every two seconds afterwards; the line moves at that pace."""

    def __init__(self) -> None:
        super().__init__(machines=MemoryMachines(RequestRate(2, 0.5)))
        self.line = MemoryLine(Pace(0.5))
        self.queue = ListQueue()

    @property
    def plane(self) -> ControlPlane:
        return replace(super().plane, line=self.line, runs_queue=self.queue)

    @property
    def calls(self) -> int:
        return len(self.machines.requests) + self.machines.throttled


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def submitted(crowd: Crowd, many: int) -> list[str]:
    names = [f"run-{number}" for number in range(many)]
    for name in names:
        crowd.submit(name)
        crowd.tell("Run Submitted", run_id=name)
    return names


def test_one_throttled_launch_spares_all_who_come_after_it_the_call(crowd: Crowd) -> None:
    names = submitted(crowd, 8)

    assert crowd.calls == 3
    turns = [run.intent.turn_at for run in map(crowd.run, names[2:]) if run.intent and run.intent.turn_at]
    assert [(at - crowd.clock.now()).total_seconds() for at in turns] == [2, 4, 6, 8, 10, 12]
    assert crowd.ledger.counts[LAUNCHES_POSTPONED] == 6


def test_each_is_woken_in_its_turn_and_launches_with_one_call(crowd: Crowd) -> None:
    names = submitted(crowd, 8)
    woken = dict(zip(crowd.queue.sent, crowd.queue.after, strict=True))

    for name, after in sorted(woken.items(), key=lambda item: item[1]):
        crowd.clock.advance(after - (crowd.clock.now() - crowd.run(name).created_at))
        crowd.look(name)

    assert set(woken) == set(names[2:])
    assert len(crowd.machines.machines) == 8
    assert crowd.calls == 9


def test_a_run_whose_old_machine_still_lives_is_woken_in_its_turn_too(crowd: Crowd) -> None:
    machine = crowd.start()
    crowd.checkpoint()
    crowd.tell("Checkpoint Committed", run_id="run-1")
    crowd.clock.advance(timedelta(minutes=1))
    for number in range(2, 5):
        crowd.submit(f"run-{number}")
        crowd.look(f"run-{number}")
    crowd.queue.sent.clear()
    crowd.queue.after.clear()

    crowd.warn(machine)

    assert (crowd.queue.sent, crowd.queue.after) == (["run-1"], [4 * SECOND])


def test_a_look_before_its_turn_sends_nothing(crowd: Crowd) -> None:
    names = submitted(crowd, 5)

    crowd.clock.advance(SECOND)
    for name in names:
        crowd.look(name)

    assert crowd.calls == 3


def test_a_run_whose_message_was_lost_is_found_by_the_sweep(crowd: Crowd) -> None:
    names = submitted(crowd, 4)

    crowd.clock.advance(timedelta(seconds=30))
    for name in crowd.store.due(crowd.clock.now()):
        crowd.look(name)

    assert all(crowd.run(name).current.instance_id for name in names)  # type: ignore[union-attr]  # all have one


def test_a_region_out_of_reach_still_counts_as_refused_after_a_throttle(crowd: Crowd) -> None:
    """Nothing was sent, so nothing can have been made there: the next rung is free."""
    names = submitted(crowd, 3)

    intent = crowd.run(names[2]).intent

    assert intent is not None and intent.sent == 0


def test_a_run_that_is_cancelled_in_line_launches_nothing(crowd: Crowd) -> None:
    names = submitted(crowd, 4)

    crowd.tell("Run Cancel Requested", run_id=names[3], reason="enough")
    crowd.clock.advance(timedelta(minutes=2))
    crowd.look(names[3])

    assert crowd.run(names[3]).status.final
    assert {m.run_id for m in crowd.machines.machines} == set(names[:2])


def test_a_line_that_cannot_be_read_leaves_the_launch_to_go_again_after_a_while(crowd: Crowd) -> None:
    class Broken(MemoryLine):
        def join(self, region: str, now: object, spread: float) -> Turn:
            raise Contention("others were faster")

    crowd.line = Broken()
    names = submitted(crowd, 3)

    intent = crowd.run(names[2]).intent

    assert intent is not None and intent.turn_at is None and intent.sent == 1
    assert intent.due_at is not None and intent.due_at > crowd.clock.now()


def test_a_postponement_that_is_told_twice_or_too_late_changes_nothing(crowd: Crowd) -> None:
    run = crowd.run(submitted(crowd, 3)[2])
    now = crowd.clock.now()
    assert run.intent is not None and run.intent.turn_at is not None
    again = LaunchPostponed(run.intent.launch, run.intent.sent, now + timedelta(hours=1), True, "throttled")
    sent_since = replace(run, intent=replace(run.intent, sent=run.intent.sent + 2))

    assert record(run, again, now, crowd.site) is run
    assert record(sent_since, again, now, crowd.site) is sent_since


def test_who_comes_when_the_line_is_too_long_comes_back_and_stands_in_it_then(crowd: Crowd) -> None:
    crowd.line = MemoryLine(Pace(0.5, horizon=10 * SECOND))
    names = submitted(crowd, 20)
    turns = [run.intent.turn_at for run in map(crowd.run, names) if run.intent]
    assert turns.count(None) == 13

    for _ in range(60):
        crowd.clock.advance(SECOND)
        for name in crowd.store.due(crowd.clock.now()):
            crowd.look(name)

    assert len(crowd.machines.machines) == 20
    assert crowd.calls <= 26  # when those beyond the line come back is drawn by chance
