"""One plain history for each of the seven promises; the random ones are in `test_promises.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.testing import Fault, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import changed
from tests.histories.trainer import Trainer
from tests.histories.world import History
from tests.mutants.__main__ import ROOT, applies, mutants

MINUTE = timedelta(minutes=1)


def started(history: History) -> Trainer:
    """The first attempt, three steps in, with one verified checkpoint."""
    history.sweep(MINUTE, [])
    trainer = newest(history)
    go_on(history, trainer)
    saved(history, trainer)
    return trainer


def newest(history: History) -> Trainer:
    return max(history.trainers.values(), key=lambda t: t.generation)


def go_on(history: History, trainer: Trainer, steps: int = 3) -> None:
    trainer.beat()
    trainer.enter()
    trainer.train(steps)
    history.sweep(MINUTE, [])


def saved(history: History, trainer: Trainer) -> None:
    trainer.upload()
    history.commit(trainer)
    history.sweep(MINUTE, [])


def replaced(history: History, trainer: Trainer, zombie: bool = False) -> Trainer:
    """The attempt that follows after this one's machine was lost, training."""
    history.deliver(history.lose(trainer, zombie), [])
    heir = newest(history)
    assert heir.generation == trainer.generation + 1
    go_on(history, heir)
    return heir


def test_promise_1_one_writer_a_zombie_is_refused_at_the_commit() -> None:
    history = History()
    zombie = started(history)
    zombie.train()
    zombie.upload()
    heir = replaced(history, zombie, zombie=True)

    history.commit(zombie)
    saved(history, heir)

    assert zombie.told_no
    assert [c.generation for c in history.accepted] == [1, 2]


def test_promise_1_one_writer_a_lost_commit_reply_is_answered_truthfully_after_the_replacement() -> None:
    history = History()
    zombie = started(history)
    zombie.train()
    zombie.upload()
    sent = zombie.uploaded
    assert sent is not None
    history.world.store.commit(sent, zombie.instance_id)  # it took effect; the reply never came
    replaced(history, zombie, zombie=True)

    zombie.commit()

    assert zombie.commits[-1] == sent and not zombie.told_no


def test_promise_2_one_launch_for_a_notice_told_three_times_and_a_lost_launch_reply() -> None:
    history = History()
    trainer = started(history)
    plane = replace(history.world.plane, machines=faulty(history.world.machines, at("launch", 1, Fault.LOST_REPLY)))
    notice = history.notice(trainer)

    history.world.deliver(notice, notice, plane=plane)
    history.deliver(notice, [])
    for _ in range(3):
        history.sweep(MINUTE, [])

    assert [m.generation for m in history.world.machines.machines] == [1, 2]
    assert {m.instance_id for m in history.world.machines.machines} == {a.instance_id for a in history.run.attempts}


def test_promise_3_never_from_a_partial_checkpoint() -> None:
    history = History()
    trainer = started(history)
    trainer.train()
    saved(history, trainer)
    history.harm_newest()

    heir = replaced(history, trainer)

    assert heir.resumed_checkpoint == "1.1"
    assert history.whole(history.checkpoint("1.1").commit)
    assert history.checkpoint("1.2").condemned


def test_promise_3_never_from_a_partial_checkpoint_whatever_the_clocks_say() -> None:
    history = History()
    trainer = started(history)
    history.skew(timedelta(seconds=-45))
    history.harm_newest()

    heir = replaced(history, trainer)

    assert heir.resumed_checkpoint != "1.1"


def test_promise_4_nothing_lost_the_newest_whole_checkpoint_is_resumed_from() -> None:
    history = History()
    trainer = started(history)
    trainer.train(4)
    saved(history, trainer)

    heir = replaced(history, trainer)

    assert heir.resumed_from == 7


def test_promise_5_always_an_owner_no_event_is_needed() -> None:
    history = History()
    trainer = started(history)
    assert history.run.due_at is not None

    history.lose(trainer, zombie=False)  # and nobody says so
    for _ in range(12):
        history.sweep(MINUTE, [])
        assert history.run.due_at is not None

    assert newest(history).generation == 2


def test_promise_6_fail_static_an_outage_longer_than_every_bound_harms_no_healthy_run() -> None:
    history = History()
    trainer = started(history)

    history.outage(40)
    for _ in range(5):
        history.sweep(MINUTE, [])

    assert history.world.machines.terminations == []
    assert newest(history) is trainer
    assert history.run.status is RunStatus.RUNNING


def test_promise_6_fail_static_a_run_that_beats_is_never_relaunched() -> None:
    history = History()
    trainer = started(history)
    faults = [Fault.UNAVAILABLE, Fault.THROTTLE, Fault.LOST_REPLY, Fault.NONE]

    for minute in range(60):
        history.sweep(MINUTE, faults[minute % 3 :])

    assert [m.instance_id for m in history.world.machines.machines] == [trainer.instance_id]
    assert history.world.machines.terminations == []


def test_a_silent_machine_that_ec2_says_runs_is_ended_before_the_next_is_launched() -> None:
    history = History()
    trainer = started(history)
    history.paused.add(trainer.instance_id)  # it hangs: no heartbeat, and EC2 says that it runs

    for _ in range(20):
        history.sweep(MINUTE, [])

    assert history.world.machines.terminations == [trainer.instance_id]
    assert newest(history).generation == 2


def test_promise_7_bounded_spend_no_launch_beyond_the_limit() -> None:
    history = History(max_launches=3)
    trainer = started(history)
    for _ in range(2):
        trainer = replaced(history, trainer)

    history.deliver(history.lose(trainer, zombie=False), [])
    history.sweep(MINUTE, [])

    assert len(history.world.machines.machines) == 3
    assert history.run.status is RunStatus.FAILED
    assert "max_launches" in history.run.outcome_why


def test_a_state_change_that_overtakes_the_notice_makes_one_replacement() -> None:
    history = History()
    trainer = started(history)
    notice = history.notice(trainer)
    gone = history.lose(trainer, zombie=False)

    for event in (changed(trainer.instance_id, InstanceState.SHUTTING_DOWN), gone, notice, gone, notice):
        history.deliver(event, [])

    assert [m.generation for m in history.world.machines.machines] == [1, 2]


def test_every_mutant_fits_the_code() -> None:
    for mutant in mutants():
        assert applies(mutant, ROOT), f"{mutant.path.name} does not fit the code any more: make it anew"
