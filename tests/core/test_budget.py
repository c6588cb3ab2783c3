"""The account's books under a thousand launches at once, in every order that was drawn."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotrelay.core.budget import CELLS, MICRO, Books, Cell, Hold, cost, midnight_after, paid_until
from spotrelay.core.errors import Contention, OutcomeUnknown
from spotrelay.testing import MemoryCells
from spotrelay.testing.contracts.budget import DAY, HOUR, NOON, hold, race, set_aside

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("ceiling", [1, 137, 999, 1001])
def test_a_thousand_threads_at_once_cannot_overspend(ceiling: int) -> None:
    books, before = Books(MemoryCells()), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many interleavings as one second holds
    try:
        granted, confused = race(books, 1000, ceiling * MICRO)
    finally:
        sys.setswitchinterval(before)

    assert set_aside(books) == len(granted) * MICRO <= ceiling * MICRO
    assert len(granted) >= min(ceiling, 1000) - confused - CELLS  # a race at the very end may leave a rest


class Interleaved(MemoryCells):
    """Sometimes loses a reply, and remembers the highest sum of all totals."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice
        self.calls = 0
        self.most = 0  # highest sum of all totals ever seen

    def _lose(self) -> None:
        self.calls += 1
        self.most = max(self.most, sum(c.total for c in self._cells.values()))
        if self.dice.random() < 0.1:
            raise OutcomeUnknown("the reply was lost")

    def put(self, cell: int, hold: Hold, expected: Hold | None, room: int | None) -> Cell | None:
        found = super().put(cell, hold, expected, room)
        self._lose()
        return found

    def drop(self, cell: int, expected: Hold, amount: int) -> Cell | None:
        found = super().drop(cell, expected, amount)
        self._lose()
        return found

    def move(self, day: date, giver: int, taker: int, amount: int, room: int) -> bool:
        moved = super().move(day, giver, taker, amount, room)
        self._lose()
        return moved


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 40))
def test_random_histories_of_holds_never_exceed_the_ceiling(seed: int, ceiling: int) -> None:
    """Holds, next pieces, confirmations, ends and lapses of many runs, one call after the other, replies lost."""
    dice = random.Random(seed)
    cells = Interleaved(dice)
    books, now = Books(cells), NOON
    machines: dict[str, Hold] = {}
    for step in range(80):
        now += dice.choice((timedelta(0), MINUTE, 20 * MINUTE))
        run_id = f"run-{dice.randrange(12)}"
        mine = machines.get(run_id)
        wish = Hold(run_id, 1, DAY, dice.randrange(1, 8) * MICRO, now + HOUR)
        if mine is not None:
            wish = replace(mine, amount=mine.amount + wish.amount, until=max(mine.until, wish.until), used=True)
        try:
            match dice.randrange(4):
                case 0 | 1:
                    if books.set_aside(wish, ceiling * MICRO, now):
                        books.confirm(wish)
                        machines[run_id] = replace(wish, used=True)
                case 2 if mine is not None:
                    books.close(run_id, 1, DAY, dice.randrange(mine.amount + 1))
                    del machines[run_id]
                case _:
                    books.set_aside(Hold(f"lost-{step}", 1, DAY, MICRO, now + 10 * MINUTE), ceiling * MICRO, now)
        except (Contention, OutcomeUnknown):
            machines.pop(run_id, None)

    assert cells.most <= ceiling * MICRO
    assert all(books.cells(DAY)[n].total <= ceiling * MICRO // CELLS for n in range(CELLS))


def test_without_the_room_in_the_condition_a_crowd_overspends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race above finds what it is there to find."""
    real = MemoryCells.put
    monkeypatch.setattr(
        MemoryCells, "put", lambda self, cell, hold, expected, room: real(self, cell, hold, expected, None)
    )
    books = Books(MemoryCells())

    race(books, 100, 20 * MICRO)

    assert set_aside(books) > 20 * MICRO


def test_a_piece_of_time_ends_with_the_day() -> None:
    late = midnight_after(NOON) - 10 * MINUTE

    assert paid_until(NOON, HOUR) == NOON + HOUR
    assert paid_until(late, HOUR) == midnight_after(NOON)
    assert paid_until(midnight_after(NOON), HOUR) == midnight_after(NOON) + HOUR


def test_what_a_machine_costs_is_told_day_by_day() -> None:
    start, end = NOON, NOON + timedelta(days=1)

    first, second = cost(2.0, start, end, DAY), cost(2.0, start, end, DAY + timedelta(days=1))

    assert (first, second) == (24 * MICRO, 24 * MICRO)
    assert cost(2.0, start, end, DAY + timedelta(days=2)) == 0
    assert cost(1.0, NOON, NOON + timedelta(milliseconds=1), DAY) == 1  # rounded up


def test_every_cell_is_asked_for_room_before_a_launch_is_refused() -> None:
    books = Books(MemoryCells())
    for n in range(100):
        books.set_aside(hold(f"run-{n}", MICRO // 10), 16 * MICRO, NOON)

    assert books.set_aside(hold("big", 6 * MICRO), 16 * MICRO, NOON)
    assert set_aside(books) == 16 * MICRO
