"""Random histories against the real handlers; the promises of the design are the invariants.

Each promise is one method whose name starts with its number. `make mutants` removes the rule behind
each promise and expects this file, or the test that the patch names, to turn red.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spotrelay.core.facts import Fact, PauseRequested, ResumeRequested, RetryRequested
from spotrelay.core.live import ASK_DRAIN
from spotrelay.core.run import Attempt, AttemptState, RunStatus
from spotrelay.testing import Fault
from tests.histories.trainer import Trainer
from tests.histories.world import History

SHRINK = os.environ.get("SPOTRELAY_SHRINK") != "no"  # takes minutes, of a failing history only
LONG = os.environ.get("SPOTRELAY_HISTORIES") == "long"
SEED = int(os.environ.get("SPOTRELAY_SEED", random.randrange(1 << 32) if LONG else 0))
PAST_EVERY_BOUND = timedelta(minutes=1)
faults: st.SearchStrategy[list[Fault]] = st.lists(
    st.sampled_from([Fault.NONE] * 12 + list(Fault)), max_size=14
) | st.just([])


@seed(SEED)
class Histories(RuleBasedStateMachine):
    """A run under notices, losses, crashes, lost replies, duplicates, zombies and damage."""

    @initialize(max_launches=st.sampled_from([100, 100, 5]))
    def a_run_is_submitted(self, max_launches: int) -> None:
        note(f"SPOTRELAY_SEED={SEED} with the same SPOTRELAY_HISTORIES runs these histories again")
        self.history = History(max_launches)

    # the control plane hears, or does not

    @rule(faults=faults, minutes=st.sampled_from([0.2, 1, 1, 3]))
    def the_sweep_comes_round(self, faults: list[Fault], minutes: float) -> None:
        self.history.sweep(timedelta(minutes=minutes), faults)

    @precondition(lambda self: self.history.awake())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2))
    def ec2_gives_notice(self, data: st.DataObject, faults: list[Fault], copies: int) -> None:
        trainer = self.one(data)
        event = self.history.notice(trainer)
        for _ in range(copies):
            self.history.deliver(event, faults)

    @precondition(lambda self: self.history.awake())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2), zombie=st.booleans())
    def a_machine_is_lost(self, data: st.DataObject, faults: list[Fault], copies: int, zombie: bool) -> None:
        event = self.history.lose(self.one(data), zombie)
        for _ in range(copies):
            self.history.deliver(event, faults)

    @precondition(lambda self: self.history.noticed or self.history.lost)
    @rule(data=st.data(), faults=faults)
    def an_old_event_comes_again(self, data: st.DataObject, faults: list[Fault]) -> None:
        instance_id = data.draw(st.sampled_from(sorted(self.history.noticed | self.history.lost)))
        self.history.deliver(self.history.told_again(instance_id), faults)

    @rule(seconds=st.integers(-60, 60))
    def the_clocks_of_two_handlers_differ(self, seconds: int) -> None:
        self.history.skew(timedelta(seconds=seconds))

    @rule(minutes=st.sampled_from([2, 6, 20, 40]))
    def the_table_is_out_of_reach(self, minutes: int) -> None:
        self.history.outage(minutes)

    @precondition(lambda self: self.history.awake())
    @rule(data=st.data(), minutes=st.sampled_from([2, 6, 10, 40]))
    def a_machine_is_cut_off(self, data: st.DataObject, minutes: int) -> None:
        self.history.cut_off(self.one(data), minutes)

    @rule(open_again=st.booleans())
    def capacity_comes_and_goes(self, open_again: bool) -> None:
        machines = self.history.world.machines
        machines.allow() if open_again else machines.refuse(instance_type="g5.xlarge", times=4)

    # trainers live on

    @precondition(lambda self: self.history.awake())
    @rule(data=st.data())
    def a_trainer_goes_on(self, data: st.DataObject) -> None:
        trainer = self.one(data)
        trainer.beat()
        trainer.enter()
        self.check_resume(trainer)
        trainer.train(data.draw(st.integers(1, 5)))
        trainer.beat()

    @precondition(lambda self: any(t.holds for t in self.history.awake()))
    @rule(data=st.data(), send=st.booleans())
    def a_trainer_saves(self, data: st.DataObject, send: bool) -> None:
        trainer = data.draw(st.sampled_from([t for t in self.history.awake() if t.holds]))
        trainer.upload()
        if send:
            self.history.commit(trainer)

    @precondition(lambda self: any(t.holds and t.asked == ASK_DRAIN for t in self.history.awake()))
    @rule(data=st.data())
    def an_asked_trainer_drains(self, data: st.DataObject) -> None:
        asked = [t for t in self.history.awake() if t.holds and t.asked == ASK_DRAIN]
        self.history.drain(data.draw(st.sampled_from(asked)))

    @precondition(lambda self: any(t.holds for t in self.history.awake() if t.instance_id in self.history.noticed))
    @rule(data=st.data())
    def a_noticed_trainer_drains(self, data: st.DataObject) -> None:
        noticed = [t for t in self.history.awake() if t.instance_id in self.history.noticed and t.holds]
        self.history.drain(data.draw(st.sampled_from(noticed)))

    @precondition(lambda self: self.history.paused)
    @rule(data=st.data())
    def a_zombie_wakes_and_commits(self, data: st.DataObject) -> None:
        zombie = data.draw(st.sampled_from(sorted(self.history.zombies(), key=lambda t: t.instance_id)))
        zombie.train()
        zombie.upload()
        self.history.commit(zombie)

    @precondition(lambda self: self.history.accepted)
    @rule()
    def an_outside_hand_deletes_a_shard(self) -> None:
        self.history.harm_newest()

    @precondition(lambda self: any(t.holds for t in self.history.awake()))
    @rule(data=st.data())
    def a_program_fails(self, data: st.DataObject) -> None:
        self.history.crash_program(data.draw(st.sampled_from([t for t in self.history.awake() if t.holds])))

    @precondition(lambda self: not self.history.cancelled and not self.history.run.status.final)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def somebody_cancels(self, really: bool) -> None:
        if really:
            self.history.cancel()

    @rule(fact=st.sampled_from([PauseRequested("dear"), PauseRequested("dear"), ResumeRequested()]))
    def somebody_pauses_or_resumes(self, fact: Fact) -> None:
        self.history.wish(fact)

    @precondition(lambda self: self.history.run.status.final)
    @rule()
    def somebody_retries(self) -> None:
        self.history.wish(RetryRequested("mended"))
        self.history.retries += 1

    # the promises

    @invariant()
    def promise_1_one_writer(self) -> None:
        generations = [commit.generation for commit in self.history.accepted]
        assert generations == sorted(generations), "an elder attempt committed after a later one"
        run = self.history.run
        lease = run.lease
        assert lease is not None
        for attempt in run.attempts:
            if attempt.over and lease.floor > attempt.generation and attempt.instance_id in self.history.trainers:
                assert self.history.refused(self.history.trainers[attempt.instance_id])

    @invariant()
    def promise_2_one_launch(self) -> None:
        made = [(m.run_id, m.generation) for m in self.history.world.machines.machines]
        assert len(made) == len(set(made)), "two machines were launched for one attempt"

    @invariant()
    def promise_5_always_an_owner(self) -> None:
        run = self.history.run
        assert run.status.final or run.due_at is not None, "nothing is due, and the run is not over"

    @invariant()
    def promise_6_fail_static(self) -> None:
        run = self.history.run
        for instance_id in self.history.world.machines.terminations:
            attempt = run.attempt_on(instance_id)
            healthy = instance_id not in self.history.noticed | self.history.lost | self.history.forsaken
            if attempt is not None and healthy and run.outcome is None:
                excused = attempt.crashed or attempt.beating_at is None or attempt.over
                assert excused or self.was_let_go(attempt), "a healthy machine was ended"

    @invariant()
    def promise_7_bounded_spend(self) -> None:
        assert len(self.history.world.machines.machines) <= self.history.max_launches * (1 + self.history.retries)
        if self.history.run.status is RunStatus.PAUSED:
            assert not self.history.run.live and self.history.run.intent is None, "it rests, and pays"

    def was_let_go(self, attempt: Attempt) -> bool:
        """Whether a person's pause explains the end of a machine: it drained, or had its time to, or only booted."""
        return attempt.let_go or attempt.running_at is None

    def check_resume(self, trainer: Trainer) -> None:
        """promises 3 and 4, at the moment of a resume"""
        if trainer.trained or not trainer.holds:
            return
        if trainer.resumed_checkpoint:
            chosen = self.history.checkpoint(trainer.resumed_checkpoint)
            assert chosen.verified, "promise 3: resumed from a checkpoint that nobody verified"
            harmed_since = self.history.harmed.get(chosen.id) == chosen.verdict  # clocks differ: no times compared
            assert self.history.whole(chosen.commit) or harmed_since, "promise 3: resumed from a partial checkpoint"
            newer = [c for c in self.history.accepted if c.id > chosen.id and c.generation < trainer.generation]
        else:
            newer = [c for c in self.history.accepted if c.generation < trainer.generation]
        assert not [c for c in newer if self.history.whole(c)], "promise 4: a whole, newer checkpoint was passed over"

    def teardown(self) -> None:
        if hasattr(self, "history"):
            self.left_alone_everything_converges()

    def left_alone_everything_converges(self) -> None:
        """One attempt trains or the run is over, and no machine is left."""
        history = self.history
        history.world.machines.allow()
        for trainer in [t for t in history.awake() if t.instance_id in history.noticed]:
            history.lose(trainer, zombie=False)  # what EC2 announced it does
        for _ in range(60):
            history.sweep(PAST_EVERY_BOUND, [])
            for trainer in history.awake():
                trainer.enter()
                self.check_resume(trainer)
                trainer.train()
                if trainer.asked == ASK_DRAIN:
                    history.drain(trainer)
        self.promise_1_one_writer()
        self.promise_2_one_launch()
        self.promise_6_fail_static()
        run = history.run
        alive = [m.instance_id for m in history.world.machines.alive]
        if run.status.final or run.paused:
            assert alive == [], "the run is over or rests, and a machine is left"
            assert run.status.final or run.status is RunStatus.PAUSED
            return
        assert len(alive) == 1, f"one machine trains when all is quiet; alive: {alive}"
        assert run.current is not None and run.current.state is AttemptState.RUNNING
        assert history.trainers[alive[0]].trained, "the run goes on"

    def one(self, data: st.DataObject) -> Trainer:
        return data.draw(st.sampled_from(sorted(self.history.awake(), key=lambda t: t.instance_id)))


TestHistories = pytest.mark.timeout(3000 if LONG else 900)(Histories.TestCase)
TestHistories.settings = settings(
    max_examples=int(os.environ.get("SPOTRELAY_EXAMPLES", 3000 if LONG else 80)),
    stateful_step_count=60 if LONG else 35,
    deadline=None,
    database=None,  # the seed says everything
    phases=(Stage.generate, Stage.shrink) if SHRINK else (Stage.generate,),
    suppress_health_check=list(HealthCheck),
)
