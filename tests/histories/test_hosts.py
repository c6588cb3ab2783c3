"""Random histories of runs that go to hosts of one's own and to EC2, against the real handlers.

All promises of `test_promises.py`, and those of docs/hosts.md: who is out of reach is unknown and not gone, what comes
back is fenced and ended, and no host runs two attempts of one run.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, note, seed, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from spotrelay.core.facts import PauseRequested, ResumeRequested
from spotrelay.core.hosts import is_host
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import Attempt, AttemptState, RunStatus
from spotrelay.core.spec import OwnMachines
from spotrelay.testing import Fault
from tests.histories.lab import LAB, MINUTE, SMALL, HostHistory
from tests.histories.test_promises import LONG, SEED, SHRINK, Histories, faults

HOSTS = {host.region: host for host in (LAB, SMALL)}
MOST_MINUTES = 120  # until all is quiet: rights last an hour, silence a quarter of one
SKEW = timedelta(minutes=3)  # of handlers' clocks, and of a sweep


@seed(SEED)
class OnHosts(Histories):
    """Hosts that vanish, come back, reboot, hang in a launch and are drained, beside all that befalls EC2."""

    history: HostHistory

    @initialize(
        max_launches=st.sampled_from([100, 100, 5]),
        own=st.sampled_from([OwnMachines.FIRST, OwnMachines.FIRST, OwnMachines.LAST]),
        trains=st.booleans(),
    )
    def a_run_is_submitted(self, max_launches: int, own: OwnMachines, trains: bool) -> None:  # type: ignore[override]
        note(f"SPOTRELAY_SEED={SEED} with the same SPOTRELAY_HISTORIES runs these histories again")
        self.history = HostHistory(max_launches, own)
        for _ in range(3 if trains else 0):
            self.history.quiet_minute()

    def in_ec2(self) -> list[str]:
        return sorted(t.instance_id for t in self.history.awake() if not t.instance_id.startswith("h-"))

    # EC2 takes machines of its own only

    @precondition(lambda self: self.in_ec2())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2))
    def ec2_gives_notice(self, data: st.DataObject, faults: list[Fault], copies: int) -> None:
        event = self.history.notice(self.history.trainers[data.draw(st.sampled_from(self.in_ec2()))])
        for _ in range(copies):
            self.history.deliver(event, faults)

    @precondition(lambda self: self.in_ec2())
    @rule(data=st.data(), faults=faults, copies=st.integers(0, 2), zombie=st.booleans())
    def a_machine_is_lost(self, data: st.DataObject, faults: list[Fault], copies: int, zombie: bool) -> None:
        event = self.history.lose(self.history.trainers[data.draw(st.sampled_from(self.in_ec2()))], zombie)
        for _ in range(copies):
            self.history.deliver(event, faults)

    # what befalls hosts

    @rule(region=st.sampled_from(sorted(HOSTS)), isolated=st.booleans(), minutes=st.sampled_from([1, 6, 20]))
    def a_host_vanishes(self, region: str, isolated: bool, minutes: int) -> None:
        self.a_host_vanishes_for(region, isolated, minutes)

    def a_host_vanishes_for(self, region: str, isolated: bool, minutes: int) -> None:
        self.history.vanish(region, isolated)
        for _ in range(minutes):
            self.history.quiet_minute()

    @rule(region=st.sampled_from(sorted(HOSTS)), faults=faults)
    def a_host_comes_back(self, region: str, faults: list[Fault]) -> None:
        self.history.come_back(region)
        self.history.sweep(MINUTE, faults)

    @precondition(lambda self: self.history.on_hosts())
    @rule(data=st.data())
    def a_host_reboots(self, data: st.DataObject) -> None:
        self.history.reboot(data.draw(st.sampled_from(self.history.on_hosts())))

    @rule(region=st.sampled_from(sorted(HOSTS)), hangs=st.booleans())
    def answers_to_launches_are_lost_or_come_again(self, region: str, hangs: bool) -> None:
        (self.history.lab.boxes.hangs.add if hangs else self.history.lab.boxes.hangs.discard)(region)

    @rule(region=st.sampled_from(sorted(HOSTS)), minutes=st.sampled_from([3, 18]))
    def a_host_vanishes_in_the_next_launch(self, region: str, minutes: int) -> None:
        self.history.lab.boxes.hangs.add(region)
        for instance_id in self.in_ec2():
            self.history.deliver(self.history.lose(self.history.trainers[instance_id], zombie=False), [])
        self.history.quiet_minute()
        self.a_host_vanishes_for(region, False, minutes)

    @rule(region=st.sampled_from(sorted(HOSTS)), draining=st.booleans())
    def a_person_drains_or_opens_a_host(self, region: str, draining: bool) -> None:
        self.history.lab.hosts.drain(HOSTS[region].name, draining)
        if draining:  # the deadline of a drain may pass before the program has heard of it
            self.history.forsaken |= {m.instance_id for m in self.history.lab.boxes.at_work(region)}

    @rule(minutes=st.integers(1, 5))
    def all_goes_well_for_a_while(self, minutes: int) -> None:
        for _ in range(minutes):
            self.history.quiet_minute()

    @rule(drains=st.booleans())
    def somebody_pauses_and_thinks_better_of_it(self, drains: bool) -> None:
        self.history.wish(PauseRequested("dear"))
        self.history.sweep(MINUTE / 2, [])
        if drains:
            self.history.quiet_minute()
        self.history.wish(ResumeRequested())
        self.history.sweep(MINUTE / 2, [])

    @rule(minutes=st.just(65))
    def an_hour_passes(self, minutes: int) -> None:
        for _ in range(minutes):
            self.history.quiet_minute()

    # the promises

    @invariant()
    def no_host_runs_two_attempts_of_one_run(self) -> None:
        for region in HOSTS:
            there = self.history.lab.boxes.at_work(region)
            assert len(there) <= 1, f"{region} runs attempts {[m.generation for m in there]} at a time"

    @invariant()
    def whoever_counts_as_gone_can_do_nothing(self) -> None:
        states = {m.instance_id: m.state for m in self.history.lab.boxes.machines}
        for attempt in self.hosted():
            assert attempt.instance_id is not None
            gone = attempt.machine_gone_at is not None and not states[attempt.instance_id].is_over
            assert not gone or not self.history.may_write(attempt.instance_id), "gone by the record, and it may write"

    @invariant()
    def unknown_is_not_gone(self) -> None:
        hopeless = self.history.world.site.timings.hopeless
        for attempt in self.hosted():
            assert attempt.instance_id is not None
            heard = self.history.heard.get(attempt.instance_id)
            given_up = "out of reach" in attempt.ended_why and attempt.noticed_at is None  # a drain has a deadline
            if attempt.ended_at is not None and given_up and heard is not None:
                assert attempt.ended_at - heard > hopeless - SKEW, "an attempt was given up that had been heard of"

    def hosted(self) -> list[Attempt]:
        return [a for a in self.history.run.attempts if a.instance_id and a.pool and is_host(a.pool.region)]

    def left_alone_everything_converges(self) -> None:
        """One attempt trains or the run is over or rests, and no machine is left but on a host that never came back."""
        history = self.history
        history.world.machines.allow()
        gone_for_good = LAB.region if history.lab.boxes.is_cut(LAB.region) else ""
        for region, host in HOSTS.items():
            history.lab.hosts.drain(host.name, False)
            history.lab.boxes.hangs.discard(region)
            if region != gone_for_good:
                history.come_back(region)
        for instance_id in history.noticed & set(self.in_ec2()):
            history.lose(history.trainers[instance_id], zombie=False)  # what EC2 announced it does
        calm = 0
        for _ in range(MOST_MINUTES):
            history.quiet_minute()
            self.no_host_runs_two_attempts_of_one_run()
            calm = 0 if self.unsettled(gone_for_good) else calm + 1
            if calm == 15:
                break
        assert not self.unsettled(gone_for_good), self.unsettled(gone_for_good)
        self.promise_1_one_writer()
        self.promise_2_one_launch()
        self.promise_6_fail_static()
        self.whoever_counts_as_gone_can_do_nothing()

    def unsettled(self, gone_for_good: str) -> str:
        """What has not come to its end yet; empty when all has."""
        run, boxes = self.history.run, self.history.lab.boxes
        alive = [m for m in self.history.world.machines.alive if m.pool.region != gone_for_good]
        beyond = {m.instance_id for m in boxes.alive if m.pool.region == gone_for_good}
        if run.status.final or run.paused:
            if run.status.final or run.status is RunStatus.PAUSED:
                return f"the run is {run.status.value}, and left are {alive}" if alive else ""
            return f"the run is still {run.status.value}"
        current = run.current
        if current is None or current.state is not AttemptState.RUNNING:
            return f"nobody trains: {current}"
        names = {m.instance_id for m in alive}
        if current.instance_id in beyond and not names:
            return "" if self.history.may_write(current.instance_id or "") else "its host is silent"
        trains = self.history.trainers[current.instance_id or ""].trained
        return "" if names == {current.instance_id} and trains else f"one machine trains when all is quiet; {alive}"


TestOnHosts = pytest.mark.timeout(1500 if LONG else 600)(OnHosts.TestCase)
TestOnHosts.settings = settings(
    max_examples=int(os.environ.get("SPOTRELAY_EXAMPLES", 1500 if LONG else 40)),
    stateful_step_count=40 if LONG else 25,
    deadline=None,
    database=None,
    phases=(Stage.generate, Stage.shrink) if SHRINK else (Stage.generate,),
    suppress_health_check=list(HealthCheck),
)


def test_a_run_that_is_lost_by_a_host_goes_to_ec2_and_comes_back() -> None:
    history = HostHistory(100, OwnMachines.FIRST)
    for _ in range(4):
        history.quiet_minute()
    first = history.run.current
    assert first is not None and first.pool == LAB.pool
    history.vanish(LAB.region, isolated=True)
    history.vanish(SMALL.region, isolated=True)

    for _ in range(25):
        history.quiet_minute()
    second = history.run.current
    for region in HOSTS:
        history.come_back(region)
    assert second is not None and second.instance_id is not None
    history.deliver(history.notice(history.trainers[second.instance_id]), [])
    history.world.machines.set_state(second.instance_id, InstanceState.TERMINATED)
    for _ in range(5):
        history.quiet_minute()

    places = [a.pool.region for a in history.run.attempts if a.pool is not None]
    assert [is_host(p) for p in places] == [True, False, True]
    assert history.run.status is RunStatus.RUNNING
    assert [m.generation for m in history.world.machines.alive] == [3]


def test_a_host_that_reaches_nobody_for_ten_minutes_keeps_its_run() -> None:
    history = HostHistory(100, OwnMachines.FIRST)
    for _ in range(4):
        history.quiet_minute()
    history.vanish(LAB.region, isolated=True)
    for _ in range(10):
        history.quiet_minute()
    history.come_back(LAB.region)

    for _ in range(10):
        history.quiet_minute()

    assert [m.generation for m in history.world.machines.machines] == [1]
    assert history.run.status is RunStatus.RUNNING


def test_a_host_that_vanishes_while_it_drains_holds_the_next_attempt_up_until_its_time_is_over() -> None:
    history = HostHistory(100, OwnMachines.FIRST)
    for _ in range(4):
        history.quiet_minute()
    history.lab.hosts.drain(LAB.name)
    history.sweep(MINUTE, [])
    history.vanish(LAB.region, isolated=True)

    for _ in range(10):
        history.quiet_minute()
    waiting = history.run.status
    for _ in range(15):
        history.quiet_minute()

    assert waiting is RunStatus.HANDOVER
    assert history.run.status is RunStatus.RUNNING
    assert history.run.attempts[0].over and history.trainers[history.run.attempts[1].instance_id or ""].trained


def test_a_run_that_is_resumed_while_it_still_saves_on_a_host_gets_no_second_machine_there() -> None:
    history = HostHistory(100, OwnMachines.FIRST)
    for _ in range(4):
        history.quiet_minute()
    history.wish(PauseRequested("dear"))
    history.sweep(MINUTE, [])  # it is asked to drain, and saves
    history.wish(ResumeRequested())

    history.sweep(MINUTE, [])

    assert {m.pool.region: m.generation for m in history.world.machines.alive} == {LAB.region: 1, SMALL.region: 2}
