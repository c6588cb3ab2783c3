"""What every `Cells` does, and what `Books` makes of it. Subclass it and give the fixture `cells`."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from spotrelay.core.budget import CELLS, MICRO, Books, Cell, Cells, Hold, Waiting, called
from spotrelay.core.errors import Contention

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = NOON.date()


def hold(run_id: str = "a-run", amount: int = MICRO, generation: int = 1, used: bool = False, day: date = DAY) -> Hold:
    """An hour's hold."""
    return Hold(run_id, generation, day, amount, NOON + HOUR, used)


def waiting(run_id: str = "a-run", amount: int = MICRO, since: datetime = NOON) -> Waiting:
    """One that waits for an hour."""
    return Waiting(run_id, since, NOON + HOUR, amount)


class CellsContract:
    """One cell, call by call; then the books of a day over all of them."""

    @pytest.fixture
    def cells(self) -> Cells:
        raise NotImplementedError

    @pytest.fixture
    def books(self, cells: Cells) -> Books:
        return Books(cells)

    def test_a_cell_that_nobody_wrote_is_empty(self, cells: Cells) -> None:
        assert cells.look(DAY, 3) == Cell()

    def test_a_hold_is_set_aside_within_the_room_and_not_beyond(self, cells: Cells) -> None:
        assert cells.put(3, hold(amount=70), None, 100) is None

        assert cells.put(3, hold("b", amount=31), None, 100) == Cell(70, {("a-run", 1): hold(amount=70)})
        assert cells.put(3, hold("b", amount=30), None, 100) is None
        assert cells.look(DAY, 3).total == 100
        assert cells.look(DAY, 4) == Cell() == cells.look(DAY + timedelta(days=1), 3)

    def test_more_than_the_room_of_an_empty_cell_is_refused(self, cells: Cells) -> None:
        assert cells.put(3, hold(amount=101), None, 100) == Cell()

    def test_a_hold_is_replaced_only_by_who_knows_it(self, cells: Cells) -> None:
        first, second = hold(amount=70), hold(amount=90, used=True)
        cells.put(3, first, None, 100)

        assert cells.put(3, second, None, 100) == Cell(70, {("a-run", 1): first})
        assert cells.put(3, second, first, 100) is None
        assert cells.look(DAY, 3) == Cell(90, {("a-run", 1): second})

    def test_without_a_room_a_hold_counts_whatever_the_total_is(self, cells: Cells) -> None:
        assert cells.put(3, hold(amount=500, used=True), None, None) is None

        assert cells.look(DAY, 3).total == 500

    def test_a_hold_is_closed_once_with_what_it_came_to(self, cells: Cells) -> None:
        mine = hold(amount=70)
        cells.put(3, mine, None, 100)

        assert cells.drop(3, mine, 20) is None
        assert cells.drop(3, mine, 20) == Cell(20, spent={"a-run": 20})
        assert cells.look(DAY, 3) == Cell(20, spent={"a-run": 20})

    def test_what_closed_holds_came_to_adds_up_by_run(self, cells: Cells) -> None:
        for generation, came_to in ((1, 20), (2, 0), (3, 5)):
            mine = hold(amount=30, generation=generation)
            cells.put(3, mine, None, 100)
            cells.drop(3, mine, came_to)
        other = hold("a-b", amount=30)
        cells.put(3, other, None, 100)
        cells.drop(3, other, 0)

        assert cells.look(DAY, 3) == Cell(25, spent={"a-run": 25})

    def test_who_waits_is_kept_until_it_has_its_hold_or_leaves(self, cells: Cells) -> None:
        for name in ("a-run", "b-run"):
            cells.wait(DAY, 3, waiting(name, amount=1))
            cells.wait(DAY, 3, waiting(name))
        cells.leave(DAY, 3, "nobody")
        assert cells.look(DAY, 3) == Cell(waiting={name: waiting(name) for name in ("a-run", "b-run")})

        assert cells.put(3, hold(amount=70), None, 60) is not None
        assert set(cells.look(DAY, 3).waiting) == {"a-run", "b-run"}
        cells.put(3, hold(amount=50), None, 60)
        assert cells.look(DAY, 3) == Cell(50, {("a-run", 1): hold(amount=50)}, waiting={"b-run": waiting("b-run")})

        cells.leave(DAY, 3, "b-run")
        assert cells.look(DAY, 3).waiting == {}

    def test_ids_that_look_alike_are_kept_apart(self, cells: Cells) -> None:
        alike = [hold("a-b", 1), hold("a--b", 2), hold("a-b-1", 4), hold("a-b", 8, generation=11)]
        for each in alike:
            cells.put(3, each, None, 100)

        assert cells.look(DAY, 3).holds == {(h.run_id, h.generation): h for h in alike}

    def test_room_moves_from_cell_to_cell(self, cells: Cells) -> None:
        cells.put(3, hold(amount=60), None, 100)

        assert cells.move(DAY, 3, 4, 40, 100)
        assert not cells.move(DAY, 3, 4, 1, 100)
        assert (cells.look(DAY, 3).total, cells.look(DAY, 4).total) == (100, -40)
        assert cells.put(4, hold("b", amount=140), None, 100) is None
        assert cells.put(4, hold("c", amount=1), None, 100) is not None

    # the books

    def test_asking_twice_sets_aside_once(self, books: Books) -> None:
        assert books.set_aside(hold(), 100 * MICRO, NOON)
        assert books.set_aside(hold(), 100 * MICRO, NOON)

        assert set_aside(books) == MICRO

    def test_the_whole_ceiling_can_be_used_by_one_run(self, books: Books) -> None:
        assert books.set_aside(hold(amount=CELLS * 1000), CELLS * 1000, NOON)
        assert not books.set_aside(hold("other", amount=1), CELLS * 1000, NOON)

        books.close("a-run", 1, DAY, 0)
        assert books.set_aside(hold("other", amount=CELLS * 1000), CELLS * 1000, NOON)

    def test_the_next_piece_adds_to_what_is_set_aside(self, books: Books) -> None:
        books.set_aside(hold(amount=3 * MICRO), 16 * MICRO, NOON)
        later = replace(hold(amount=7 * MICRO, used=True), until=NOON + 2 * HOUR)

        assert books.set_aside(later, 16 * MICRO, NOON)
        assert set_aside(books) == 7 * MICRO
        assert not books.set_aside(replace(later, amount=17 * MICRO, until=NOON + 3 * HOUR), 16 * MICRO, NOON)
        assert set_aside(books) == 7 * MICRO

    def test_a_launch_that_never_came_holds_no_money_beyond_its_time(self, books: Books) -> None:
        books.set_aside(hold(amount=16 * MICRO), 16 * MICRO, NOON)

        assert not books.set_aside(hold("next"), 16 * MICRO, NOON + HOUR / 2)
        assert books.set_aside(replace(hold("next"), until=NOON + 2 * HOUR), 16 * MICRO, NOON + HOUR)

    def test_a_machine_that_came_is_paid_for_beyond_its_time(self, books: Books) -> None:
        books.set_aside(hold(amount=16 * MICRO), 16 * MICRO, NOON)
        books.confirm(hold(amount=16 * MICRO))

        assert not books.set_aside(replace(hold("next"), until=NOON + 2 * HOUR), 16 * MICRO, NOON + HOUR)

    def test_a_machine_that_came_after_its_time_counts_all_the_same(self, books: Books) -> None:
        books.confirm(hold(amount=20 * MICRO))

        books.level(DAY, 16 * MICRO)
        assert set_aside(books) == 20 * MICRO
        assert not books.set_aside(hold("next", amount=1), 16 * MICRO, NOON)

    def test_a_ceiling_that_is_lowered_holds_for_all_cells_together(self, books: Books) -> None:
        books.set_aside(hold(amount=10 * MICRO), 16 * MICRO, NOON)

        books.level(DAY, 12 * MICRO)

        assert set_aside(books) == 10 * MICRO
        assert not books.set_aside(hold("next", amount=2 * MICRO + 1), 12 * MICRO, NOON)
        assert books.set_aside(hold("next", amount=2 * MICRO), 12 * MICRO, NOON)

    def test_who_waits_longest_is_called_first_and_no_more_than_the_room_suffices_for(self, books: Books) -> None:
        books.set_aside(hold(amount=10 * MICRO), 16 * MICRO, NOON)
        for minute, name in enumerate(("first", "second", "third")):
            books.wait(DAY, waiting(name, 3 * MICRO, NOON + timedelta(minutes=minute)))
        books.wait(DAY, waiting("second", 4 * MICRO, NOON - HOUR / 2))
        books.wait(DAY, waiting("first", 3 * MICRO, NOON + HOUR / 2))
        books.wait(DAY, replace(waiting("trains", 2 * MICRO, NOON + HOUR / 2), machine=True))
        books.wait(DAY, replace(waiting("forgotten", MICRO, NOON - HOUR), until=NOON))

        def names(ceiling: int) -> list[str]:
            return [each.run_id for each in called(books.cells(DAY), ceiling * MICRO, NOON)]

        assert names(11) == []
        assert names(16) == ["trains", "first"]
        assert names(32) == ["trains", "first", "second", "third"]
        books.close("a-run", 1, DAY, 0)
        assert names(16) == ["trains", "first", "second", "third"]

    def test_closing_twice_changes_nothing_more(self, books: Books) -> None:
        books.set_aside(hold(amount=5 * MICRO), 16 * MICRO, NOON)

        books.close("a-run", 1, DAY, MICRO)
        books.close("a-run", 1, DAY, MICRO)

        assert set_aside(books) == MICRO

    def test_a_crowd_spends_the_ceiling_to_the_last_launch_and_not_more(self, books: Books) -> None:
        """The race that must add up: far more launches at once than the money suffices for."""
        crowd, ceiling = self.crowd(), 20 * MICRO
        granted, confused = race(books, crowd, ceiling)

        assert set_aside(books) == len(granted) * MICRO <= ceiling
        assert len(granted) == 20 or confused, f"{len(granted)} of 20 that the money suffices for"
        assert max(cell.total for cell in books.cells(DAY)) <= ceiling // CELLS

    def crowd(self) -> int:
        """Launches at once; fewer where each costs a request."""
        return 64


def race(books: Books, crowd: int, ceiling: int) -> tuple[list[str], int]:
    """Let a crowd of runs ask for a dollar each at once: who got it, and how many could not tell."""
    start, lock = threading.Barrier(crowd), threading.Lock()
    granted: list[str] = []
    confused: list[str] = []

    def ask(run_id: str) -> None:
        start.wait()
        try:
            if books.set_aside(hold(run_id), ceiling, NOON):
                with lock:
                    granted.append(run_id)
        except Contention:
            with lock:
                confused.append(run_id)

    names = [f"run-{n}" for n in range(crowd)]
    random.Random(7).shuffle(names)
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return granted, len(confused)


def set_aside(books: Books) -> int:
    """All of a day's money that is set aside or spent."""
    return sum(cell.total for cell in books.cells(DAY))
