"""Runs of one account learn from each other's launches and losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.control import ControlPlane
from spotrelay.core.errors import Contention, Unavailable
from spotrelay.core.experience import Experience, PoolRecord
from spotrelay.core.lessons import Lesson
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool
from spotrelay.core.run import RunStatus
from spotrelay.core.site import Site
from spotrelay.testing import MemoryExperience
from tests.handlers.plane import SPEC, World

ZONES = (("eu-west-1", "eu-west-1a"), ("eu-west-1", "eu-west-1b"), ("us-east-1", "us-east-1a"))
HOUR = timedelta(hours=1)


class Counting(MemoryExperience):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.recalls = 0
        self.lessons: list[Lesson] = []

    def recall(self) -> Experience:
        self.recalls += 1
        return super().recall()

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        told = list(lessons)
        self.lessons += told
        super().learn(told, scale)


class Broken(MemoryExperience):
    """Does not answer."""

    def recall(self) -> Experience:
        raise Unavailable("no answer")

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        raise Contention("others were faster")


class Account(World):
    """The control plane with a memory of pools."""

    memory: MemoryExperience

    @property
    def plane(self) -> ControlPlane:
        return replace(super().plane, experience=self.memory)


@pytest.fixture
def account() -> Account:
    world = Account(site=Site(ZONES))
    world.memory = Counting()
    return world


def known(account: Account, zone: str) -> PoolRecord:
    pool = next(r.pool for r in account.memory.recall().records if r.pool.zone == zone)
    record = account.memory.recall().record_of(pool)
    assert record is not None
    return record


def pool_of(account: Account, run_id: str) -> Pool:
    attempt = account.run(run_id).current
    assert attempt is not None and attempt.pool is not None
    return attempt.pool


def test_a_launch_and_its_loss_are_learnt(account: Account) -> None:
    machine = account.start()
    zone = pool_of(account, "run-1").zone
    held = [tenure.instance_id for tenure in known(account, zone).machines]

    account.clock.advance(3 * HOUR)
    account.warn(machine)

    record = known(account, zone)
    assert held == [machine]
    assert (record.losses, record.machines) == (1.0, ())
    assert record.hours == pytest.approx(3.0, abs=0.1)


def test_the_end_after_the_notice_teaches_nothing_more(account: Account) -> None:
    machine = account.start()
    zone = pool_of(account, "run-1").zone
    account.warn(machine)
    before = known(account, zone)

    account.change(machine, InstanceState.TERMINATED)
    account.settle(3)

    assert known(account, zone) == before


def test_a_finished_program_is_no_loss_of_its_pool(account: Account) -> None:
    account.start()
    zone = pool_of(account, "run-1").zone

    account.exit("run-1", 1, code=0)

    assert account.run().outcome is RunStatus.SUCCEEDED
    assert (known(account, zone).losses, known(account, zone).machines) == (0.0, ())


def test_another_runs_refusals_and_losses_steer_a_new_run_to_another_region(account: Account) -> None:
    machine = account.start("first")
    account.machines.refuse("InsufficientInstanceCapacity", FailureScope.POOL, zone="eu-west-1a")
    account.machines.refuse("InsufficientInstanceCapacity", FailureScope.POOL, zone="eu-west-1b")
    account.clock.advance(timedelta(minutes=5))
    account.change(machine, InstanceState.TERMINATED)
    account.clock.advance(timedelta(minutes=20))

    account.submit("second")
    account.tell("Run Submitted", run_id="second")

    asked = [entry.text for entry in account.store.timeline("second") if entry.kind == "reserved"]
    assert "last longest" in asked[0] and "us-east-1a" in asked[0]


def test_experience_is_read_once_a_response_and_only_for_a_launch(account: Account) -> None:
    memory = account.memory
    assert isinstance(memory, Counting)

    machine = account.start()
    for_the_launch = memory.recalls
    account.sweep(timedelta(minutes=1))
    account.look()
    for_looks = memory.recalls - for_the_launch
    account.warn(machine)

    assert (for_the_launch, for_looks, memory.recalls) == (1, 0, 2)


def test_a_healthy_run_teaches_nothing(account: Account) -> None:
    memory = account.memory
    assert isinstance(memory, Counting)
    account.start()
    taught = len(memory.lessons)

    for _ in range(5):
        account.beat("run-1", 1)
        account.sweep(timedelta(minutes=1))

    assert len(memory.lessons) == taught == 2  # that it has a machine, and what that costs


def test_an_experience_that_does_not_answer_holds_up_nothing(account: Account) -> None:
    account.memory = Broken()

    machine = account.start()
    account.warn(machine)

    run = account.run()
    assert len(run.attempts) == 2 and run.attempts[1].instance_id is not None
    assert pool_of(account, "run-1").zone == "eu-west-1b"
    warned = {line for level, line, _ in account.ledger.lines if level == "warning"}
    assert any("spec's own order" in line for line in warned) and any("lesson" in line for line in warned)


def test_without_a_memory_the_specs_order_stands() -> None:
    world = World(site=Site(ZONES))

    world.start("run-1", SPEC)

    assert world.run().attempts[0].pool == Pool("eu-west-1", "eu-west-1a", "g5.xlarge")
