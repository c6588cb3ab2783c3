"""The account's budget, from the books to the launches: the real handlers on in-memory ports."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.control import ControlPlane
from handlers.respond import respond
from handlers.settings import MONEY_REFUSED
from spotrelay.core.budget import MICRO, Books, Budget, midnight_after
from spotrelay.core.errors import Unavailable
from spotrelay.core.facts import CancelRequested
from spotrelay.core.live import EXIT_DONE
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.core.scoring import Transfer
from spotrelay.core.spec import AtCeiling, Limits, Spec
from spotrelay.core.spending import spent
from spotrelay.testing import Crash, Fault, MemoryCells, faulty
from spotrelay.testing.faults import at
from tests.handlers.plane import SPEC, ListQueue, World

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Account(World):
    """A world whose account has a budget; a machine costs a dollar an hour."""

    dollars = 10.0

    def __post_init__(self) -> None:
        self.cells = MemoryCells()

    @property
    def books(self) -> Books:
        return Books(self.cells)

    @property
    def plane(self) -> ControlPlane:
        site = replace(self.site, budget=Budget(self.dollars))
        return replace(super().plane, site=site, books=self.books)

    @property
    def set_aside(self) -> float:
        """Dollars of today."""
        return sum(cell.total for cell in self.books.cells(self.clock.now().date())) / MICRO


@pytest.fixture
def account() -> Account:
    world = Account()
    world.__post_init__()
    return world


def train(world: World, minutes: int) -> None:
    """Let the first attempt go on for so long, with the sweep coming round."""
    for _ in range(minutes):
        world.beat("run-1", 1)
        world.sweep(MINUTE)


def kinds(world: World, run_id: str = "run-1") -> list[str]:
    return [entry.kind for entry in world.store.timeline(run_id)]


def test_a_launch_sets_an_hour_aside_before_it_is_sent(account: Account) -> None:
    account.submit()

    account.look()

    assert account.set_aside == pytest.approx(1.0)
    assert len(account.machines.alive) == 1


def test_a_launch_without_money_is_not_sent_and_asks_again_later(account: Account) -> None:
    account.dollars = 0.5
    account.submit()

    account.look()
    account.settle(60)

    assert account.machines.requests == []
    assert account.set_aside == 0
    assert account.ledger.counts[MONEY_REFUSED] > 2
    assert kinds(account).count("no-money") == 1
    assert account.run().status is RunStatus.WAITING


def test_a_run_that_waits_for_money_goes_on_when_another_gives_it_back(account: Account) -> None:
    account.dollars = 1.5
    machine = account.start("first")
    account.submit("second")
    account.look("second")
    assert len(account.machines.machines) == 1

    account.exit("first", 1, EXIT_DONE)
    account.change(machine, InstanceState.TERMINATED)
    account.settle(30)

    assert account.run("second").current.instance_id is not None  # type: ignore[union-attr]
    assert account.machines.machines[1].run_id == "second"


def test_a_run_that_waits_for_money_goes_on_within_a_minute_of_its_coming_back(account: Account) -> None:
    account.dollars = 1.5
    machine = account.start("first")
    account.submit("second")
    account.look("second")
    account.exit("first", 1, EXIT_DONE)
    account.change(machine, InstanceState.TERMINATED)

    account.sweep(MINUTE)

    assert [m.run_id for m in account.machines.machines] == ["first", "second"]
    assert all(cell.waiting == {} for cell in account.books.cells(account.clock.now().date()))


def test_a_run_that_waits_for_money_goes_on_within_a_minute_of_a_higher_budget(account: Account) -> None:
    account.dollars = 0.5
    account.submit()
    account.look()
    account.settle(3)
    assert account.machines.machines == []

    account.dollars = 5.0
    account.sweep(MINUTE)

    assert len(account.machines.alive) == 1


def test_a_machine_without_money_for_its_next_hour_is_paid_within_a_minute_of_a_higher_budget(account: Account) -> None:
    account.dollars = 1.0
    account.start()
    train(account, 51)
    assert account.run().broke_until is not None

    account.dollars = 5.0
    train(account, 2)

    assert account.run().broke_until is None
    train(account, 30)
    assert [attempt.generation for attempt in account.run().attempts] == [1]
    assert "drain" not in kinds(account)


def test_waiting_for_money_leaves_one_line_and_no_launch_behind_however_often_it_asks(account: Account) -> None:
    account.dollars = 0.5
    account.submit()

    account.look()
    account.settle(180)

    assert kinds(account) == ["reserved", "launch", "no-money"]
    assert account.run().launches == 1
    assert account.ledger.counts[MONEY_REFUSED] > 10


def test_a_run_that_waits_for_money_and_is_cancelled_is_called_no_more(account: Account) -> None:
    account.dollars = 0.5
    account.submit()
    account.look()

    respond(account.plane, "run-1", [CancelRequested("it takes too long")])

    assert account.run().status is RunStatus.CANCELLED
    assert all(cell.waiting == {} for cell in account.books.cells(account.clock.now().date()))


def test_of_a_crowd_that_waits_for_money_only_those_are_called_for_whom_it_suffices(account: Account) -> None:
    account.dollars = 0.5
    names = [f"run-{n}" for n in range(50)]
    for name in names:
        account.submit(name)
        account.look(name)
        account.clock.advance(timedelta(milliseconds=1))
    queue = ListQueue()

    account.dollars = 10.5
    account.sweep(plane=replace(account.plane, runs_queue=queue))

    assert queue.sent == names[:10]


def test_runs_that_wait_for_the_next_day_do_not_ask_all_together(account: Account) -> None:
    midnight = midnight_after(account.clock.now())
    account.clock.advance(midnight - MINUTE - account.clock.now())
    account.dollars = 0.001
    for n in range(200):
        account.submit(f"run-{n}")
        account.look(f"run-{n}")

    asked = [account.run(f"run-{n}").broke_until for n in range(200)]

    minutes = Counter((at - midnight) // MINUTE for at in asked if at is not None)
    assert set(minutes) == set(range(10))
    assert max(minutes.values()) < 40


def test_what_a_run_that_ended_has_spent_today_stays_with_its_name(account: Account) -> None:
    machine = account.start()
    train(account, 30)

    account.exit("run-1", 1, EXIT_DONE)
    account.change(machine, InstanceState.TERMINATED)

    cells = account.books.cells(account.clock.now().date())
    assert [cell.holds for cell in cells if cell.holds] == []
    assert sum(cell.spent.get("run-1", 0) for cell in cells) / MICRO == pytest.approx(0.5, abs=0.02)


def test_a_run_that_waits_for_money_goes_on_with_the_next_day(account: Account) -> None:
    account.dollars = 1.5
    account.start("first")
    account.submit("second")
    account.look("second")

    account.clock.advance(timedelta(hours=24))
    account.look("second")

    assert account.run("second").current.instance_id is not None  # type: ignore[union-attr]


def test_a_run_whose_spec_says_so_ends_when_the_account_has_no_money(account: Account) -> None:
    account.dollars = 0.5
    account.submit(spec=replace(SPEC, limits=Limits(at_ceiling=AtCeiling.STOP)))

    account.look()

    assert account.run().status is RunStatus.FAILED
    assert "at_ceiling" in account.run().outcome_why


def test_a_machine_is_paid_for_piece_by_piece_and_at_its_end_for_what_it_ran(account: Account) -> None:
    machine = account.start()
    train(account, 150)

    assert account.set_aside == pytest.approx(3.0, abs=0.34)
    account.exit("run-1", 1, EXIT_DONE)
    account.change(machine, InstanceState.TERMINATED)

    assert account.run().status is RunStatus.SUCCEEDED
    assert account.set_aside == pytest.approx(2.5, abs=0.05)


def test_a_refused_launch_gives_its_money_back(account: Account) -> None:
    account.machines.refuse()
    account.submit()

    account.look()

    assert account.set_aside == 0


def test_a_launch_whose_price_nobody_knows_is_not_made(account: Account) -> None:
    account.machines.refuse(market="spot")
    account.submit(spec=replace(SPEC, on_demand=True))
    priced = account.machines.prices
    account.machines.prices = lambda pools: {p: v for p, v in priced(pools).items() if p.market == "spot"}  # type: ignore[method-assign]

    account.look()

    assert {pool["market"] for request in account.machines.requests for pool in request["Pools"]} == {"spot"}


def test_an_on_demand_launch_counts_with_the_price_that_the_spec_tells(account: Account) -> None:
    account.machines.refuse(market="spot")
    prices = {"g5.xlarge": 3.0, "g5.2xlarge": 4.0}
    account.submit(spec=replace(SPEC, on_demand=True, limits=Limits(on_demand_prices=prices)))

    account.look()

    assert account.set_aside == pytest.approx(3.0)


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_crash_between_reserve_and_launch_leaks_no_money(account: Account, fault: Fault) -> None:
    account.submit()
    dying = replace(account.plane, machines=faulty(account.machines, at("launch", 1, fault)))
    with pytest.raises(Crash):
        account.look(plane=dying)
    assert account.set_aside == pytest.approx(1.0)

    account.settle(5)

    assert len(account.machines.alive) == 1
    assert account.set_aside == pytest.approx(1.0, abs=0.1)


def test_what_a_run_that_nobody_can_finish_set_aside_is_free_when_its_time_is_over(account: Account) -> None:
    account.dollars = 1.2
    account.submit("lost")
    dying = replace(account.plane, machines=faulty(account.machines, at("launch", 1, Fault.CRASH_BEFORE)))
    with pytest.raises(Crash):
        account.look("lost", plane=dying)
    account.submit("next")

    account.look("next")
    assert account.machines.machines == []
    account.clock.advance(HOUR + MINUTE)
    account.look("next")

    assert [m.run_id for m in account.machines.machines] == ["next"]


def test_books_that_do_not_answer_stop_launches_and_no_machine(account: Account) -> None:
    machine = account.start("training")
    account.submit("new")

    class Silent(MemoryCells):
        def put(self, *arguments: object) -> None:  # type: ignore[override]
            raise Unavailable("the table does not answer")

    broken = replace(account.plane, books=Books(Silent()))
    account.look("new", plane=broken)
    for _ in range(90):
        account.beat("training", 1)
        account.sweep(MINUTE, plane=broken)

    assert [m.instance_id for m in account.machines.machines] == [machine]
    assert account.machines.alive
    account.settle(5)
    assert {m.run_id for m in account.machines.alive} >= {"new"}


def test_a_thousand_handlers_at_once_launch_what_the_money_suffices_for(account: Account) -> None:
    account.dollars = 100.5
    names = [f"run-{n}" for n in range(1000)]
    for name in names:
        account.submit(name)
    plane, start = account.plane, threading.Barrier(50)

    def handler(share: list[str]) -> None:
        start.wait()
        for name in share:
            account.look(name, plane)

    threads = [threading.Thread(target=handler, args=(names[n::50],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 95 <= len(account.machines.machines) <= 100
    assert account.set_aside == pytest.approx(len(account.machines.machines))


def test_without_a_budget_nothing_is_asked_and_nothing_written() -> None:
    world = World()

    world.start()

    assert world.run().attempts[0].paid_until is None
    assert Spec(("x",), ("g5.xlarge",)).limits.at_ceiling is AtCeiling.WAIT


def test_the_way_of_a_checkpoint_into_another_region_is_paid_for_too(account: Account) -> None:
    zones = (*account.site.zones, ("us-east-1", "us-east-1a"))
    tiny = Transfer(dollars_per_gib=2.0**26)  # the checkpoint has 16 bytes
    account.site = replace(account.site, zones=zones, home="eu-west-1", transfer=tiny)
    machine = account.start()
    account.checkpoint()
    account.tell("Checkpoint Committed", run_id="run-1")
    account.machines.refuse(region="eu-west-1")
    before = account.set_aside

    account.warn(machine)
    account.settle(2)

    heir = account.run().attempts[1]
    assert heir.pool is not None and heir.pool.region == "us-east-1"
    assert heir.transfer == pytest.approx(1.0)
    assert account.set_aside - before == pytest.approx(1.0 + heir.transfer, abs=0.05)
    assert spent(account.run(), account.clock.now()) > heir.transfer
