"""Random histories of gangs of two and three machines, against the real handlers.

The promises of `test_promises.py`, for an attempt that has several machines: one lease, one launch, never two gangs at
work, no machine that nobody answers for, survivors that wait no longer than they may, and nobody of two ranks.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlers.sweep import SweepFailed
from spotrelay.core.errors import OutcomeUnknown
from spotrelay.core.facts import Fact, PauseRequested, ResumeRequested, RetryRequested
from spotrelay.core.live import ASK_DRAIN
from spotrelay.core.run import AttemptState, RunStatus
from spotrelay.testing import Fault
from tests.histories.gang import GangHistory, Named
from tests.histories.test_promises import LONG, SEED, SHRINK, faults
from tests.histories.trainer import Trainer

MINUTE = timedelta(minutes=1)


@seed(SEED)
class Gangs(RuleBasedStateMachine):
    """Notices and losses of any machine, lost replies and crashes, short launches, partings, pauses and zombies."""

    @initialize(
        nodes=st.sampled_from([2, 3]),
        reunion_s=st.sampled_from([120.0, 120.0, 600.0, 0.0]),
        trains=st.sampled_from([True, True, False]),
    )
    def a_gang_is_submitted(self, nodes: int, reunion_s: float, trains: bool) -> None:
        note(f"SPOTRELAY_SEED={SEED} with the same SPOTRELAY_HISTORIES runs these histories again")
        self.history = GangHistory(nodes, reunion_s)
        for _ in range(3 if trains else 0):  # most histories are about what comes after the first steps
            self.history.quiet_minute()

    # the control plane hears, or does not

    @rule(faults=faults, minutes=st.sampled_from([0.2, 1, 1, 3]))
    def the_sweep_comes_round(self, faults: list[Fault], minutes: float) -> None:
        self.history.sweep(timedelta(minutes=minutes), faults)

    def alive(self) -> list[str]:
        return sorted(
            m.instance_id for m in self.history.world.machines.alive if m.instance_id not in self.history.paused
        )

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2))
    def ec2_gives_notice(self, data: st.DataObject, faults: list[Fault], copies: int) -> None:
        instance_id = data.draw(st.sampled_from(self.alive()))
        event = self.history.notice(Named(instance_id))  # type: ignore[arg-type]  # only its id is looked at
        for _ in range(copies):
            self.history.deliver(event, faults)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2), zombie=st.booleans())
    def a_machine_is_lost(self, data: st.DataObject, faults: list[Fault], copies: int, zombie: bool) -> None:
        instance_id = data.draw(st.sampled_from(self.alive()))
        event = self.history.lose(Named(instance_id), zombie and instance_id in self.history.trainers)  # type: ignore[arg-type]
        for _ in range(copies):
            self.history.deliver(event, faults)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), faults=faults, notice=st.booleans(), minutes=st.integers(0, 3))
    def a_machine_goes_and_the_others_wait(
        self, data: st.DataObject, faults: list[Fault], notice: bool, minutes: int
    ) -> None:
        machine = Named(data.draw(st.sampled_from(self.alive())))
        if notice:
            self.history.deliver(self.history.notice(machine), faults)  # type: ignore[arg-type]
            self.all_goes_well_for_a_while(1)
        self.history.deliver(self.history.lose(machine, zombie=False), faults)  # type: ignore[arg-type]
        self.all_goes_well_for_a_while(minutes)

    @precondition(lambda self: self.history.noticed or self.history.lost)
    @rule(data=st.data(), faults=faults)
    def an_old_event_comes_again(self, data: st.DataObject, faults: list[Fault]) -> None:
        instance_id = data.draw(st.sampled_from(sorted(self.history.noticed | self.history.lost)))
        self.history.deliver(self.history.told_again(instance_id), faults)

    @rule(seconds=st.integers(-60, 60))
    def the_clocks_of_two_handlers_differ(self, seconds: int) -> None:
        self.history.skew(timedelta(seconds=seconds))

    @rule(minutes=st.sampled_from([2, 6, 20]))
    def the_table_is_out_of_reach(self, minutes: int) -> None:
        self.history.outage(minutes)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), minutes=st.sampled_from([2, 6, 20]))
    def a_machine_is_cut_off(self, data: st.DataObject, minutes: int) -> None:
        self.history.cut_off_machine(data.draw(st.sampled_from(self.alive())), minutes)

    @rule(missing=st.integers(1, 2))
    def the_next_launch_comes_short(self, missing: int) -> None:
        self.history.world.machines.come_short(missing)

    @rule(open_again=st.booleans(), zone=st.sampled_from(["", "eu-west-1a"]))
    def capacity_comes_and_goes(self, open_again: bool, zone: str) -> None:
        machines = self.history.world.machines
        where = {"zone": zone} if zone else {"instance_type": "g5.xlarge"}
        machines.allow() if open_again else machines.refuse(times=4, **where)

    # the gang lives on

    @rule(minutes=st.integers(1, 3))
    def a_while_goes_well(self, minutes: int) -> None:
        self.all_goes_well_for_a_while(minutes)

    def all_goes_well_for_a_while(self, minutes: int) -> None:
        for _ in range(minutes):
            self.history.quiet_minute()

    @precondition(lambda self: self.history.mates)
    @rule(data=st.data())
    def ranks_part(self, data: st.DataObject) -> None:
        mates, whole = self.history.mates, self.history.is_whole
        broken = [m for i, m in mates.items() if i in self.alive() and not whole(m.generation)]
        if broken:
            data.draw(st.sampled_from(broken)).part()

    @precondition(lambda self: self.history.mates)
    @rule(data=st.data(), really=st.sampled_from([False, False, True]))
    def a_program_of_its_own_accord_fails(self, data: st.DataObject, really: bool) -> None:
        mates = [m for i, m in self.history.mates.items() if i in self.alive()]
        if mates and really:
            data.draw(st.sampled_from(mates)).end(1)

    @precondition(lambda self: self.history.awake())
    @rule(data=st.data())
    def a_gang_goes_on(self, data: st.DataObject) -> None:
        trainer = data.draw(st.sampled_from(sorted(self.history.awake(), key=lambda t: t.instance_id)))
        trainer.beat()
        if self.history.complete(trainer):
            trainer.enter()
            trainer.train(data.draw(st.integers(1, 5)))
            trainer.beat()

    @precondition(lambda self: any(t.holds for t in self.history.awake()))
    @rule(data=st.data(), send=st.booleans())
    def a_gang_saves(self, data: st.DataObject, send: bool) -> None:
        trainer = data.draw(st.sampled_from([t for t in self.history.awake() if t.holds]))
        trainer.upload()
        if send:
            self.history.commit(trainer)

    def draining(self) -> list[Trainer]:
        asked = (t for t in self.history.awake() if t.asked == ASK_DRAIN or self.history.is_draining(t))
        return [t for t in asked if t.holds]

    @precondition(lambda self: self.draining())
    @rule(data=st.data())
    def a_noticed_or_asked_gang_drains(self, data: st.DataObject) -> None:
        self.history.drain(data.draw(st.sampled_from(self.draining())))

    @precondition(lambda self: self.history.paused & self.history.trainers.keys())
    @rule(data=st.data())
    def a_zombie_wakes_and_commits(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.history.paused & self.history.trainers.keys())))
        self.wake(self.history.trainers[name])

    @precondition(lambda self: self.history.ghosts)
    @rule(data=st.data())
    def what_a_survivor_ran_before_commits(self, data: st.DataObject) -> None:
        self.wake(data.draw(st.sampled_from(self.history.ghosts)))

    def wake(self, trainer: Trainer) -> None:
        trainer.train()
        trainer.upload()
        self.history.commit(trainer)

    # people

    @rule(really=st.sampled_from([False] * 12 + [True]))
    def somebody_cancels(self, really: bool) -> None:
        if really and not self.history.cancelled and not self.history.run.status.final:
            self.history.cancel()

    @rule(fact=st.sampled_from([None, None, PauseRequested("dear"), ResumeRequested()]))
    def somebody_pauses_or_resumes(self, fact: Fact | None) -> None:
        if fact is not None:
            self.history.wish(fact)

    @precondition(lambda self: self.history.run.status.final)
    @rule()
    def somebody_retries(self) -> None:
        self.history.wish(RetryRequested("mended"))
        self.history.cancelled = False

    # the promises

    @invariant()
    def one_writer(self) -> None:
        generations = [commit.generation for commit in self.history.accepted]
        assert generations == sorted(generations), "an elder gang committed after a later one"
        lease = self.history.run.lease
        assert lease is not None
        for trainer in (*self.history.trainers.values(), *self.history.ghosts):
            attempt = self.history.run.attempt(trainer.generation)
            if attempt is not None and attempt.over and lease.floor > attempt.generation:
                assert self.history.refused(trainer)
        assert all(mate.refused() for mate in self.history.mates.values()), "two machines of a gang may commit"

    @invariant()
    def one_launch(self) -> None:
        made: dict[tuple[int, int], int] = {}
        for machine in self.history.world.machines.machines:
            key = (machine.generation, machine.launch)
            made[key] = made.get(key, 0) + 1
        assert all(count <= self.history.nodes for count in made.values()), "more machines than the gang has"
        assert len({generation for generation, _ in made}) == len(made), "two launches gave machines for one attempt"

    @invariant()
    def always_an_owner(self) -> None:
        run = self.history.run
        assert run.status.final or run.due_at is not None

    @invariant()
    def at_most_one_gang_is_at_work_and_it_is_whole(self) -> None:
        for attempt in self.history.attempts():
            if attempt.running_at is not None:
                assert len(attempt.members) == self.history.nodes, "an incomplete gang has taken the lease"

    @invariant()
    def nobody_has_two_ranks(self) -> None:
        live = [m.instance_id for attempt in self.history.attempts() for m in attempt.machines if m.live]
        assert len(live) == len(set(live)), "a machine counts for two attempts, or has two ranks in one"

    @invariant()
    def a_healthy_gang_is_left_alone(self) -> None:
        run, touched = self.history.run, self.history.noticed | self.history.lost | self.history.forsaken
        for instance_id in self.history.world.machines.terminations:
            attempt = run.attempt_on(instance_id)
            if attempt is None or run.outcome is not None or touched & set(attempt.instance_ids):
                continue
            booted = all(m.beating_at is not None for m in attempt.machines)
            excused = attempt.over or attempt.let_go or attempt.running_at is None or not booted
            assert excused, "a machine of a healthy gang was ended"

    @invariant()
    def whoever_rests_pays_nothing(self) -> None:
        run = self.history.run
        if run.status is RunStatus.PAUSED:
            assert not run.live and run.intent is None

    def teardown(self) -> None:
        if hasattr(self, "history"):
            self.left_alone_everything_converges()

    def left_alone_everything_converges(self) -> None:
        """One whole gang trains, or the run is over or rests, and no machine is left over.

        Where its last gang stood nothing more is to be had: who cannot be whole there has to move.
        """
        history, machines = self.history, self.history.world.machines
        machines.allow()
        machines.come_short(0)
        pools = [a.pool for a in history.attempts() if a.pool is not None]
        if pools:
            machines.refuse(zone=pools[-1].zone, instance_type=pools[-1].instance_type)
        for instance_id in history.noticed & {m.instance_id for m in machines.alive}:
            history.lose(Named(instance_id), zombie=False)  # type: ignore[arg-type]  # what EC2 announced it does
        quiet_since = history.world.clock.now()
        for _ in range(60):
            history.quiet_minute()
            late = history.waits_too_long(history.world.clock.now(), quiet_since)
            assert not late, f"survivors wait beyond their bound: {late}"
            self.nobody_has_two_ranks()
        self.one_writer()
        self.one_launch()
        run = history.run
        alive = {m.instance_id for m in machines.alive}
        recorded = {instance_id for attempt in run.attempts for instance_id in attempt.instance_ids}
        assert alive <= recorded, "a machine runs that no attempt names"
        if run.status.final or run.paused:
            assert alive == set(), "the run is over or rests, and machines are left"
            assert run.status.final or run.status is RunStatus.PAUSED
            return
        assert run.current is not None and run.current.state is AttemptState.RUNNING, run.current
        assert alive == set(run.current.instance_ids), "exactly the gang that trains is left"


TestGangs = pytest.mark.timeout(1500 if LONG else 600)(Gangs.TestCase)
TestGangs.settings = settings(
    max_examples=int(os.environ.get("SPOTRELAY_EXAMPLES", 1500 if LONG else 40)),
    stateful_step_count=50 if LONG else 30,
    deadline=None,
    database=None,
    phases=(Stage.generate, Stage.shrink) if SHRINK else (Stage.generate,),
    suppress_health_check=list(HealthCheck),
)


def started(nodes: int = 2) -> tuple[GangHistory, Trainer]:
    """A gang that trains, with one verified checkpoint."""
    history = GangHistory(nodes)
    history.sweep(MINUTE, [])
    return history, training(history)


def training(history: GangHistory) -> Trainer:
    trainer = max(history.trainers.values(), key=lambda t: t.generation)
    trainer.beat()
    trainer.enter()
    trainer.train(3)
    trainer.upload()
    history.commit(trainer)
    history.sweep(MINUTE, [])
    return trainer


def mate_of(history: GangHistory, trainer: Trainer) -> str:
    attempt = history.run.attempt(trainer.generation)
    assert attempt is not None
    return attempt.instance_ids[1]


def test_the_loss_of_one_machine_replaces_the_gang_and_shuts_all_of_it_out() -> None:
    history, first = started()
    first.train()
    first.upload()

    history.deliver(history.lose(Named(mate_of(history, first)), zombie=False), [])  # type: ignore[arg-type]
    heir = training(history)
    history.commit(first)

    assert heir.instance_id == first.instance_id  # it survived, and has rank 0 again
    assert first.told_no
    assert [c.generation for c in history.accepted] == [1, 2]
    alive = {m.instance_id for m in history.world.machines.alive}
    assert alive == {heir.instance_id, mate_of(history, heir)}


def test_an_unclear_launch_is_one_gang_and_nobody_ends_a_part_of_it_meanwhile() -> None:
    history = GangHistory(3)
    plane = replace(history.world.plane, machines=Unclear(history.world.machines, times=4))
    for _ in range(9):
        history.world.clock.advance(2 * MINUTE)
        with contextlib.suppress(SweepFailed):
            history.world.sweep(plane=plane)

    attempt = history.run.current
    assert attempt is not None
    assert len(history.world.machines.machines) == 3
    assert attempt.instance_ids == tuple(m.instance_id for m in history.world.machines.alive)


def test_a_gang_that_was_launched_for_a_run_that_was_cancelled_meanwhile_is_ended_whole() -> None:
    history = GangHistory(3)
    plane = replace(history.world.plane, machines=Unclear(history.world.machines, times=100))
    with contextlib.suppress(SweepFailed):
        history.world.sweep(plane=plane)
    assert len(history.world.machines.alive) == 3

    history.cancel()
    history.world.settle(10)

    assert history.world.machines.alive == []
    assert history.run.status.final
    assert len(history.run.attempts[0].members) == 3


class Unclear:
    """EC2 whose answers to launches are lost, a number of times."""

    def __init__(self, machines: Any, times: int) -> None:
        self._machines = machines
        self._times = times

    def launch(self, *arguments: Any, **more: Any) -> Any:
        answer = self._machines.launch(*arguments, **more)
        if self._times:
            self._times -= 1
            raise OutcomeUnknown("the reply was lost")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machines, name)
