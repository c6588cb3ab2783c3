"""The account's books in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date

from spotrelay.core.budget import Cell, Hold, Waiting


class MemoryCells:
    """`Cells` that forget when the process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[tuple[date, int], Cell] = {}

    def look(self, day: date, cell: int) -> Cell:
        """A cell as it stands."""
        with self._lock:
            return self._at(day, cell)

    def put(self, cell: int, hold: Hold, expected: Hold | None, room: int | None) -> Cell | None:
        """Set this hold aside if its attempt has still what was expected, and the total stays within the room."""
        with self._lock:
            found, key = self._at(hold.day, cell), (hold.run_id, hold.generation)
            total = found.total + hold.amount - (expected.amount if expected else 0)
            if found.holds.get(key) != expected or (room is not None and total > room):
                return found
            waiting = {name: each for name, each in found.waiting.items() if name != hold.run_id}
            self._cells[hold.day, cell] = Cell(total, {**found.holds, key: hold}, found.spent, waiting)
            return None

    def drop(self, cell: int, expected: Hold, amount: int) -> Cell | None:
        """Close this hold with what it came to, if it is still as expected."""
        with self._lock:
            found, key = self._at(expected.day, cell), (expected.run_id, expected.generation)
            if found.holds.get(key) != expected:
                return found
            others = {name: hold for name, hold in found.holds.items() if name != key}
            spent = found.spent
            if amount:
                spent = {**spent, expected.run_id: spent.get(expected.run_id, 0) + amount}
            total = found.total - expected.amount + amount
            self._cells[expected.day, cell] = replace(found, total=total, holds=others, spent=spent)
            return None

    def wait(self, day: date, cell: int, waiting: Waiting) -> None:
        """Write down that a run waits for money, in place of what was written of it before."""
        with self._lock:
            found = self._at(day, cell)
            self._cells[day, cell] = replace(found, waiting={**found.waiting, waiting.run_id: waiting})

    def leave(self, day: date, cell: int, run_id: str) -> None:
        """Write down that a run waits no longer."""
        with self._lock:
            found = self._at(day, cell)
            others = {name: each for name, each in found.waiting.items() if name != run_id}
            self._cells[day, cell] = replace(found, waiting=others)

    def move(self, day: date, giver: int, taker: int, amount: int, room: int) -> bool:
        """Let the taker have room of the giver's, if the giver's total stays within the room then."""
        with self._lock:
            gives, takes = self._at(day, giver), self._at(day, taker)
            if gives.total + amount > room:
                return False
            self._cells[day, giver] = replace(gives, total=gives.total + amount)
            self._cells[day, taker] = replace(takes, total=takes.total - amount)
            return True

    def _at(self, day: date, cell: int) -> Cell:
        return self._cells.get((day, cell), Cell())
