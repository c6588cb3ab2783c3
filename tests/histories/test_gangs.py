"""Random histories of gangs of two and three machines, against the real handlers.

The promises of `test_promises.py`, for an attempt that has several machines: one lease, one launch, never two gangs at
work, and no machine that nobody answers for.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from handlers.sweep import SweepFailed
from spotrelay.core.errors import OutcomeUnknown, SpotrelayError
from spotrelay.core.live import EXIT_PARTED, ExitReport, Heartbeat, Phase
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import Attempt, AttemptState
from spotrelay.core.spec import Limits
from spotrelay.testing import Fault
from tests.histories.test_promises import LONG, SEED, faults
from tests.histories.trainer import Trainer
from tests.histories.world import RUN, SPEC, History

MINUTE = timedelta(minutes=1)


class Mate:
    """The agent on one of a gang's further machines: it beats, and says how its program ended."""

    def __init__(self, instance_id: str, generation: int, node: int, history: GangHistory) -> None:
        self.instance_id = instance_id
        self.generation = generation
        self.node = node
        self._store = history.world.store
        self._counter = 0

    def beat(self) -> None:
        self._counter += 1
        beat = Heartbeat(RUN, self.generation, self._counter, Phase.WAITING, node=self.node)
        with contextlib.suppress(SpotrelayError):
            self._store.beat(beat)

    def part(self) -> None:
        """Its ranks have lost the others."""
        report = ExitReport(RUN, self.generation, EXIT_PARTED, "program", node=self.node)
        with contextlib.suppress(SpotrelayError):
            self._store.report(report)


class GangHistory(History):
    """A run on several machines. The trainer is rank 0's; it trains while every machine of its attempt is there."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.world = type(self.world)()
        self._machines = self.world.machines  # type: ignore[assignment]  # faults are drawn for the stores only
        self.mates: dict[str, Mate] = {}
        spec = replace(SPEC, nodes=nodes, limits=Limits(400, max_failures=1000))
        self.nodes = nodes
        self.serves: dict[str, int] = {}  # generation by machine
        self.ghosts: list[Trainer] = []  # what survivors ran in their attempt before
        self.world.submit(RUN, spec)

    def attempts(self) -> tuple[Attempt, ...]:
        return self.run.attempts

    def sweep(self, after: timedelta, faults: list[Fault]) -> None:
        alive = {m.instance_id for m in self.world.machines.alive}
        for instance_id, mate in self.mates.items():
            if instance_id in alive and instance_id not in self.paused:
                mate.beat()
        super().sweep(after, faults)

    def complete(self, trainer: Trainer) -> bool:
        """Whether every machine of its attempt is there, so that its steps can end."""
        attempt = self.run.attempt(trainer.generation)
        states = {m.instance_id: m.state for m in self.world.machines.machines}
        names = attempt.instance_ids if attempt is not None else ()
        return bool(names) and not any(states[i].is_over or i in self.paused for i in names)

    def _meet_machines(self) -> None:
        """Agents learn their rank from the run's row."""
        machines = {m.instance_id: m for m in self.world.machines.machines}
        for attempt in self.run.attempts:
            for node, instance_id in enumerate(attempt.instance_ids):
                machine = machines[instance_id]
                if self.serves.get(instance_id, 0) >= attempt.generation:
                    continue
                self._leave(instance_id)
                self.serves[instance_id] = attempt.generation
                if machine.state is InstanceState.PENDING:
                    self.world.machines.set_state(instance_id, InstanceState.RUNNING)
                if node == 0:
                    store, objects = self.world.store, self.world.objects
                    self.trainers[instance_id] = Trainer(RUN, attempt.generation, instance_id, store, objects)
                else:
                    self.mates[instance_id] = Mate(instance_id, attempt.generation, node, self)

    def _leave(self, instance_id: str) -> None:
        """A survivor goes over: what it ran before may still wake."""
        self.mates.pop(instance_id, None)
        ghost = self.trainers.pop(instance_id, None)
        if ghost is not None:
            self.ghosts.append(ghost)


@seed(SEED)
class Gangs(RuleBasedStateMachine):
    """Notices and losses of any machine, lost replies and crashes, short launches, partings and zombies."""

    @initialize(nodes=st.sampled_from([2, 3]))
    def a_gang_is_submitted(self, nodes: int) -> None:
        self.history = GangHistory(nodes)

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

    @precondition(lambda self: self.history.mates)
    @rule(data=st.data())
    def ranks_part(self, data: st.DataObject) -> None:
        broken = [m for i, m in self.history.mates.items() if i in self.alive() and not self.is_whole(m.generation)]
        if broken:
            data.draw(st.sampled_from(broken)).part()

    def is_whole(self, generation: int) -> bool:
        trainers = [t for t in self.history.trainers.values() if t.generation == generation]
        return bool(trainers) and self.history.complete(trainers[0])

    @rule(missing=st.integers(1, 2))
    def the_next_launch_comes_short(self, missing: int) -> None:
        self.history.world.machines.come_short(missing)

    @rule(open_again=st.booleans())
    def capacity_comes_and_goes(self, open_again: bool) -> None:
        machines = self.history.world.machines
        machines.allow() if open_again else machines.refuse(instance_type="g5.xlarge", times=4)

    @rule(minutes=st.sampled_from([2, 6, 20]))
    def the_table_is_out_of_reach(self, minutes: int) -> None:
        self.history.outage(minutes)

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

    @precondition(lambda self: any(t.holds and self.is_draining(t) for t in self.history.awake()))
    @rule(data=st.data())
    def a_noticed_gang_drains(self, data: st.DataObject) -> None:
        able = [t for t in self.history.awake() if t.holds and self.is_draining(t)]
        self.history.drain(data.draw(st.sampled_from(able)))

    def is_draining(self, trainer: Trainer) -> bool:
        attempt = self.history.run.attempt(trainer.generation)
        return attempt is not None and bool(self.history.noticed & set(attempt.instance_ids))

    @precondition(lambda self: self.history.paused & self.history.trainers.keys())
    @rule(data=st.data())
    def a_zombie_wakes_and_commits(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.history.paused & self.history.trainers.keys())))
        zombie = self.history.trainers[name]
        zombie.train()
        zombie.upload()
        self.history.commit(zombie)

    @precondition(lambda self: self.history.ghosts)
    @rule(data=st.data())
    def what_a_survivor_ran_before_commits(self, data: st.DataObject) -> None:
        ghost = data.draw(st.sampled_from(self.history.ghosts))
        ghost.train()
        ghost.upload()
        self.history.commit(ghost)

    @rule(really=st.sampled_from([False] * 12 + [True]))
    def somebody_cancels(self, really: bool) -> None:
        if really and not self.history.cancelled and not self.history.run.status.final:
            self.history.cancel()

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

    def teardown(self) -> None:
        if hasattr(self, "history"):
            self.left_alone_everything_converges()

    def left_alone_everything_converges(self) -> None:
        """One whole gang trains or the run is over, and no machine is left over."""
        history, machines = self.history, self.history.world.machines
        machines.allow()
        machines.come_short(0)
        for instance_id in history.noticed & {m.instance_id for m in machines.alive}:
            history.lose(Named(instance_id), zombie=False)  # type: ignore[arg-type]  # what EC2 announced it does
        for _ in range(60):
            with contextlib.suppress(SweepFailed):
                history.sweep(MINUTE, [])
            for trainer in history.awake():
                trainer.beat()
                if history.complete(trainer):
                    trainer.enter()
                    trainer.train()
        self.one_writer()
        self.one_launch()
        run = history.run
        alive = {m.instance_id for m in machines.alive}
        recorded = {instance_id for attempt in run.attempts for instance_id in attempt.instance_ids}
        assert alive <= recorded, "a machine runs that no attempt names"
        if run.status.final:
            assert alive == set(), "the run is over and machines are left"
            return
        assert run.current is not None and run.current.state is AttemptState.RUNNING, run.current
        assert alive == set(run.current.instance_ids), "exactly the gang that trains is left"


class Named:
    """A machine, for what looks at its id only."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id


TestGangs = pytest.mark.timeout(1500 if LONG else 600)(Gangs.TestCase)
TestGangs.settings = settings(
    max_examples=int(os.environ.get("SPOTRELAY_EXAMPLES", 1000 if LONG else 40)),
    stateful_step_count=50 if LONG else 30,
    deadline=None,
    database=None,
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
