"""The account's budget of a day: money is set aside before a launch, and what was not used is given back.

A day's books are spread over cells, each with an equal share of the ceiling, so that a crowd of launches does
not queue up at one item. Every change is one conditional write on one cell: it sets what a machine has to its
name to a stated sum, and is refused where the cell's total would exceed the share. A cell without room takes
over room of others: their totals grow by what its own shrinks. So whatever happens at the same time, the
totals add up to the money set aside, and no total exceeds its share: the sum cannot exceed the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zlib import crc32

from spotrelay.core.errors import Contention, OutcomeUnknown

CELLS = 16
MICRO = 1_000_000  # parts of a dollar that are counted: whole numbers add up
TRIES = 40  # of one change of the books, against others who change the same cell
NO_CEILING = 1e9  # dollars a day: books are kept, and nothing is ever refused
BLOCK = timedelta(hours=1)  # machine time is set aside in pieces of this length
SHORTEST = timedelta(minutes=1)  # machine time that EC2 bills at the least


@dataclass(frozen=True)
class Budget:
    """What the machines of all runs of a stack may cost together."""

    dollars_a_day: float  # days of UTC
    block: timedelta = BLOCK

    @property
    def ceiling(self) -> int:
        """Millionths of a dollar a day."""
        return int(self.dollars_a_day * MICRO)


@dataclass(frozen=True)
class Hold:
    """What one attempt has set aside in a day's books, altogether."""

    run_id: str
    generation: int
    day: date
    amount: int  # millionths of a dollar; all of that day's, not what is added
    until: datetime  # UTC: the machine time that it pays for ends then
    used: bool = False  # a machine exists; else the money is free again once `until` has passed
    rate: int = 0  # millionths of a dollar an hour


@dataclass(frozen=True)
class Waiting:
    """A run for which a day had no money."""

    run_id: str
    since: datetime  # UTC
    until: datetime  # UTC; who has not asked again by then waits no longer
    amount: int  # millionths of a dollar that it asked for
    machine: bool = False  # for the next piece of a machine's time, rather than for a launch


@dataclass(frozen=True)
class Cell:
    """One part of a day's books."""

    total: int = 0  # set aside or spent; below it by what was taken over from other cells
    holds: Mapping[tuple[str, int], Hold] = field(default_factory=dict)  # by run and generation
    spent: Mapping[str, int] = field(default_factory=dict)  # by run: what its holds that are closed came to
    waiting: Mapping[str, Waiting] = field(default_factory=dict)  # by run


class Cells(Protocol):
    """Where the books are kept; each call is atomic."""

    def look(self, day: date, cell: int) -> Cell:
        """A cell as it stands; an empty one where there is none."""
        ...

    def put(self, cell: int, hold: Hold, expected: Hold | None, room: int | None) -> Cell | None:
        """Set this hold aside if its attempt has still what was expected, and the total stays within the room.

        The total changes by the difference of the two amounts; None as room: whatever the total is.
        Whoever has got its hold waits no longer.
        Returns None when that is done, else the cell as it stands.

        Raises:
            OutcomeUnknown: the reply was lost; ask for the same again.
        """
        ...

    def drop(self, cell: int, expected: Hold, amount: int) -> Cell | None:
        """Close this hold with what it came to, if it is still as expected. Answers as `put` does."""
        ...

    def wait(self, day: date, cell: int, waiting: Waiting) -> None:
        """Write down that a run waits for money, in place of what was written of it before."""
        ...

    def leave(self, day: date, cell: int, run_id: str) -> None:
        """Write down that a run waits no longer."""
        ...

    def move(self, day: date, giver: int, taker: int, amount: int, room: int) -> bool:
        """Let the taker have room of the giver's, if the giver's total stays within the room then."""
        ...


class Books:
    """A day's money over its cells."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def set_aside(self, hold: Hold, ceiling: int, now: datetime) -> bool:
        """Have this much set aside for an attempt; asking twice sets aside once.

        Args:
            ceiling: millionths of a dollar, of all attempts on that day.

        Returns whether it is; False when the day's money does not suffice.

        Raises:
            Contention: others change the books all the time; nothing is known, ask again.
        """
        mine, share = cell_of(hold.run_id), ceiling // CELLS
        expected: Hold | None = None
        for _ in range(TRIES):
            found = self._try(mine, hold, expected, share)
            if found is None:
                return True
            old = found.holds.get((hold.run_id, hold.generation))
            if old is not None and _covers(old, hold):
                return True
            if old != expected:
                expected = old
                continue
            lacking = found.total + hold.amount - (old.amount if old else 0) - share
            if lacking > 0 and not self._make_room(hold.day, mine, lacking, share, now):
                return False
        raise Contention(f"the books of {hold.day} change all the time; try again a little later")

    def confirm(self, hold: Hold) -> None:
        """Say that a machine uses this hold; what it costs counts from now on, whatever the ceiling is."""
        mine = cell_of(hold.run_id)
        for _ in range(TRIES):
            old = self._cells.look(hold.day, mine).holds.get((hold.run_id, hold.generation))
            new = replace(old or hold, used=True)
            if new == old or self._try(mine, new, old, None) is None:
                return
        raise Contention(f"the books of {hold.day} change all the time; try again a little later")

    def close(self, run_id: str, generation: int, day: date, amount: int) -> None:
        """Let a hold have come to this amount, which may be nothing. Harmless when it is closed."""
        mine = cell_of(run_id)
        for _ in range(TRIES):
            old = self._cells.look(day, mine).holds.get((run_id, generation))
            if old is None or self._dropped(mine, old, amount):
                return
        raise Contention(f"the books of {day} change all the time; try again a little later")

    def wait(self, day: date, waiting: Waiting) -> None:
        """Have a run called when there is money for it. Who waits already keeps its place."""
        mine = cell_of(waiting.run_id)
        old = self._cells.look(day, mine).waiting.get(waiting.run_id)
        self._cells.wait(day, mine, replace(waiting, since=old.since) if old else waiting)

    def leave(self, day: date, run_id: str) -> None:
        """Have a run not called any more."""
        self._cells.leave(day, cell_of(run_id), run_id)

    def level(self, day: date, ceiling: int) -> tuple[Cell, ...]:
        """Cover what cells have beyond their share with room of others; every cell as it was before.

        A cell gets there when a machine ran on without money, or when the ceiling was lowered.
        """
        cells, share = self.cells(day), ceiling // CELLS
        rooms = {n: share - cell.total for n, cell in enumerate(cells) if cell.total < share}
        for taker, beyond in ((n, cell.total - share) for n, cell in enumerate(cells) if cell.total > share):
            self._take_over(day, rooms, taker, beyond, share)
        return cells

    def cells(self, day: date) -> tuple[Cell, ...]:
        """Every cell of a day: for people, and for whoever looks for room."""
        return tuple(self._cells.look(day, cell) for cell in range(CELLS))

    def _try(self, cell: int, hold: Hold, expected: Hold | None, room: int | None) -> Cell | None:
        try:
            return self._cells.put(cell, hold, expected, room)
        except OutcomeUnknown:
            return self._cells.look(hold.day, cell)  # our own write may be in it

    def _dropped(self, cell: int, hold: Hold, amount: int) -> bool:
        try:
            return self._cells.drop(cell, hold, amount) is None
        except OutcomeUnknown:
            return False  # looked at again

    def _make_room(self, day: date, mine: int, lacking: int, share: int, now: datetime) -> bool:
        """Whether there may be room in our cell by now: room of others was moved, or forgotten holds were freed."""
        cells = dict(enumerate(self.cells(day)))
        if self._free_forgotten(cells, now):
            return True
        rooms = {n: share - c.total for n, c in cells.items() if n != mine and c.total < share}
        if sum(rooms.values()) < lacking:
            return False
        with suppress(OutcomeUnknown):  # moved or not, the totals add up; the next look tells
            self._take_over(day, rooms, mine, lacking, share)
        return True

    def _take_over(self, day: date, rooms: dict[int, int], taker: int, lacking: int, share: int) -> None:
        """Let a cell have room of others, the roomiest first; what each of them has is counted down."""
        for giver in sorted(rooms, key=lambda n: -rooms[n]):
            amount = min(rooms[giver], lacking)
            if amount > 0 and self._cells.move(day, giver, taker, amount, share):
                rooms[giver] -= amount
                lacking -= amount

    def _free_forgotten(self, cells: Mapping[int, Cell], now: datetime) -> bool:
        """Close what was set aside for launches that never came, once its time is over."""
        freed = [self._dropped(n, hold, 0) for n, cell in cells.items() for hold in forgotten(cell, now)]
        return any(freed)


def cell_of(run_id: str) -> int:
    """The cell in which a run's money is set aside."""
    return crc32(f"budget {run_id}".encode()) % CELLS


def _covers(old: Hold, wanted: Hold) -> bool:
    return old.until >= wanted.until and old.amount >= wanted.amount and (old.used or not wanted.used)


def forgotten(cell: Cell, now: datetime) -> Iterator[Hold]:
    """Holds of launches that never came, whose time is over."""
    return (hold for hold in cell.holds.values() if not hold.used and hold.until <= now)


def room_in(cells: Iterable[Cell], ceiling: int, now: datetime) -> int:
    """Millionths of a dollar that can still be set aside: what is left, and what nobody will use."""
    taken = sum(cell.total - sum(hold.amount for hold in forgotten(cell, now)) for cell in cells)
    return ceiling // CELLS * CELLS - taken


def called(cells: Iterable[Cell], ceiling: int, now: datetime) -> Iterator[Waiting]:
    """Who waits and can be paid by now: machines before launches, then who waits longest; no more than fit together."""
    found = tuple(cells)
    room = room_in(found, ceiling, now)
    waiting = (each for cell in found for each in cell.waiting.values() if each.until > now)
    for each in sorted(waiting, key=lambda w: (not w.machine, w.since, w.run_id)):
        if each.amount <= room:
            room -= each.amount
            yield each


def hourly(cells: Iterable[Cell], now: datetime) -> int:
    """Millionths of a dollar an hour that machines cost at this moment, those about to come included."""
    return sum(hold.rate for cell in cells for hold in cell.holds.values() if hold.until > now)


def midnight_after(now: datetime) -> datetime:
    """When the day of UTC ends."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)


def paid_until(now: datetime, block: timedelta) -> datetime:
    """The end of a piece of machine time that begins now; none reaches into the next day."""
    return min(now + block, midnight_after(now))


def cost(rate: float, start: datetime, end: datetime, day: date) -> int:
    """Millionths of a dollar that a machine costs within a day, rounded up.

    Args:
        rate: dollars an hour.
    """
    begin = datetime.combine(day, datetime.min.time(), UTC)
    span = min(end, begin + timedelta(days=1)) - max(start, begin)
    return -int(-max(span, timedelta(0)).total_seconds() * rate * MICRO // 3600)
