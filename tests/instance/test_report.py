from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import InvalidInput, Missing, Unavailable
from spotrelay.core.live import ExitReport
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.metadata import Reclaim
from spotrelay.instance.patience import StopAsked, keep_trying
from spotrelay.instance.report import deliver, patience
from spotrelay.testing.faults import Fault, Script, faulty
from spotrelay.testing.signals import MemoryPublisher
from spotrelay.testing.store import MemoryStore
from tests.instance.attempts import RUN, a_run, a_spec

FAST = Timings().scaled(0.002)
REPORT = ExitReport(RUN, 1, 3, "program", "the tail")


def delivered(live: MemoryStore, publisher: MemoryPublisher, reclaim: Reclaim | None = None) -> tuple[bool, str]:
    logbook = Logbook()
    return deliver(REPORT, live, publisher, logbook, threading.Event(), FAST, reclaim), logbook.tail()


def a_store() -> MemoryStore:
    store = MemoryStore()
    store.create(a_run(a_spec()))
    return store


def test_a_report_is_stored_and_announced() -> None:
    store, publisher = a_store(), MemoryPublisher()

    accepted, _ = delivered(store, publisher)

    assert accepted
    assert store.load(RUN).reports == (REPORT,)
    assert publisher.of("Attempt Reported") == [{"run_id": RUN, "generation": 1, "what": "exited"}]


@pytest.mark.parametrize("fault", [Fault.THROTTLE, Fault.UNAVAILABLE, Fault.LOST_REPLY])
def test_a_report_is_put_until_it_is_accepted(fault: Fault) -> None:
    store, publisher = a_store(), MemoryPublisher()

    accepted, log = delivered(faulty(store, Script({"report": [fault] * 3})), publisher)

    assert accepted
    assert store.load(RUN).reports == (REPORT,)
    assert log.count("trying again") == 1


def test_a_table_that_is_gone_is_told_and_not_waited_for() -> None:
    class Gone(MemoryStore):
        def report(self, report: ExitReport) -> None:
            raise Missing("table t is not there")

    accepted, log = delivered(Gone(), MemoryPublisher())

    assert not accepted
    assert "table t is not there" in log


def test_a_bus_that_does_not_answer_costs_the_hint_only() -> None:
    store = a_store()

    accepted, log = delivered(store, faulty(MemoryPublisher(), Script([Fault.UNAVAILABLE])))

    assert accepted
    assert "sweep will notice" in log


def test_patience_ends_with_the_notice() -> None:
    soon = Reclaim("terminate", datetime.now(UTC) + timedelta(seconds=30))
    past = Reclaim("terminate", datetime.now(UTC) - timedelta(seconds=30))

    assert timedelta(seconds=25) < patience(Timings(), soon) <= timedelta(seconds=30)
    assert patience(Timings(), past) == Timings().poll
    assert patience(Timings(), None) == Timings().hopeless


def test_trying_again_ends_when_its_time_is_over() -> None:
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        keep_trying(action, timedelta(milliseconds=80), timedelta(milliseconds=5), threading.Event(), lambda _: None)

    assert len(tries) > 1


def test_an_error_that_time_does_not_mend_is_not_tried_again() -> None:
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        keep_trying(action, timedelta(hours=1), timedelta(hours=1), threading.Event(), lambda _: None)

    assert tries == [1]


def test_a_machine_that_is_being_ended_does_not_try_again() -> None:
    def action() -> None:
        raise Unavailable("no")

    stop = threading.Event()
    stop.set()

    with pytest.raises(StopAsked):
        keep_trying(action, timedelta(hours=1), timedelta(seconds=1), stop, lambda _: None)
