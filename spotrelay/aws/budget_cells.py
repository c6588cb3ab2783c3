"""The account's books in DynamoDB: one item for each cell of a day, each in a partition of its own."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

from spotrelay.aws.layout import Item
from spotrelay.aws.table import Condition, ConditionFailed, Table
from spotrelay.core.budget import Cell, Hold, Waiting
from spotrelay.core.errors import InvalidInput
from spotrelay.core.row import SCHEMA, check_schema

SORT = "ROW"
ANYHOW = "attribute_exists(#pk) OR attribute_not_exists(#pk)"
HOLD = re.compile(r"^h_(?P<run>.+)__(?P<generation>\d+)$")  # an attribute for each attempt; ids have no underscore
SPENT, WAITS = "s_", "w_"  # further attributes, for each run


class DynamoCells:
    """`Cells` over the table of our layout."""

    def __init__(self, client: Any, table: str) -> None:
        self._table = Table(client, table)

    def look(self, day: date, cell: int) -> Cell:
        """A cell as it stands, read consistently."""
        return _read(day, self._table.get(_partition(day, cell), SORT, f"reading the books of {day}"))

    def put(self, cell: int, hold: Hold, expected: Hold | None, room: int | None) -> Cell | None:
        """Set this hold aside if its attempt has still what was expected, and the total stays within the room."""
        name, more = _attribute(hold), hold.amount - (expected.amount if expected else 0)
        values = {":hold": _text(hold), ":more": _number(more), ":zero": _number(0), ":schema": _number(SCHEMA)}
        condition = _still(name, expected, values)
        if room is not None:
            values[":room"] = _number(room - more)
            fits = "#total <= :room"
            condition += f" AND ({fits} OR attribute_not_exists(#total))" if more <= room else f" AND {fits}"
        change = f"SET #{name} = :hold, #schema = :schema, #total = if_not_exists(#total, :zero) + :more"
        change += f" REMOVE #{_of_run(WAITS, hold.run_id)}"
        return self._change(hold.day, cell, change, Condition(condition, values))

    def drop(self, cell: int, expected: Hold, amount: int) -> Cell | None:
        """Close this hold with what it came to, if it is still as expected."""
        values = {":less": _number(expected.amount - amount)}
        name = _attribute(expected)
        condition = _still(name, expected, values)
        change = f"SET #total = #total - :less REMOVE #{name}"
        if amount:
            values[":amount"] = _number(amount)
            change += f" ADD #{_of_run(SPENT, expected.run_id)} :amount"  # once, since the hold is gone then
        return self._change(expected.day, cell, change, Condition(condition, values))

    def move(self, day: date, giver: int, taker: int, amount: int, room: int) -> bool:
        """Let the taker have room of the giver's, if the giver's total stays within the room then."""
        values = {":amount": _number(amount), ":zero": _number(0), ":schema": _number(SCHEMA)}
        fits = Condition("#total <= :room OR attribute_not_exists(#total)", values | {":room": _number(room - amount)})
        grow = "SET #schema = :schema, #total = if_not_exists(#total, :zero) + :amount"
        shrink = "SET #schema = :schema, #total = if_not_exists(#total, :zero) - :amount"
        anyhow = Condition(ANYHOW, values)
        actions = [
            self._table.update_of(_partition(day, giver), SORT, grow, fits),
            self._table.update_of(_partition(day, taker), SORT, shrink, anyhow),
        ]
        try:
            self._table.transact(actions, f"moving room in the books of {day}")
        except ConditionFailed:
            return False
        return True

    def wait(self, day: date, cell: int, waiting: Waiting) -> None:
        """Write down that a run waits for money, in place of what was written of it before."""
        values = {":waiting": _waiting_text(waiting), ":zero": _number(0), ":schema": _number(SCHEMA)}
        name = _of_run(WAITS, waiting.run_id)
        change = f"SET #{name} = :waiting, #schema = :schema, #total = if_not_exists(#total, :zero)"
        self._change(day, cell, change, Condition(ANYHOW, values))

    def leave(self, day: date, cell: int, run_id: str) -> None:
        """Write down that a run waits no longer."""
        name = _of_run(WAITS, run_id)
        self._change(day, cell, f"REMOVE #{name}", Condition(f"attribute_exists(#{name})"))

    def _change(self, day: date, cell: int, change: str, condition: Condition) -> Cell | None:
        try:
            self._table.update(_partition(day, cell), SORT, change, f"changing the books of {day}", condition)
        except ConditionFailed as error:
            return _read(day, error.found)
        return None


def _still(name: str, expected: Hold | None, values: dict[str, Any]) -> str:
    if expected is None:
        return f"attribute_not_exists(#{name})"
    values[":old"] = _text(expected)
    return f"#{name} = :old"


def _partition(day: date, cell: int) -> str:
    return f"BUDGET#{day.isoformat()}#{cell:02d}"


def _attribute(hold: Hold) -> str:
    return f"{_of_run('h_', hold.run_id)}__{hold.generation}"


def _of_run(prefix: str, run_id: str) -> str:
    return f"{prefix}{run_id.replace('-', '_')}"


def _run_of(prefix: str, name: str) -> str:
    return name.removeprefix(prefix).replace("_", "-")


def _text(hold: Hold) -> dict[str, str]:
    """Short, since a cell holds hundreds of them: amount, end in seconds, whether a machine uses it, rate."""
    return {"S": f"{hold.amount} {hold.until.timestamp():.6f} {'used' if hold.used else 'free'} {hold.rate}"}


def _waiting_text(waiting: Waiting) -> dict[str, str]:
    since, until = waiting.since.timestamp(), waiting.until.timestamp()
    return {"S": f"{waiting.amount} {since:.6f} {until:.6f} {'machine' if waiting.machine else 'launch'}"}


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _read(day: date, item: Item | None) -> Cell:
    if item is None:
        return Cell()
    check_schema(int(item["schema"]["N"]), f"the books of {day}")
    holds = [hold for name, value in item.items() if (hold := _hold(day, name, value)) is not None]
    spent = {_run_of(SPENT, name): int(value["N"]) for name, value in item.items() if name.startswith(SPENT)}
    waiting = [_waiting(day, name, value) for name, value in item.items() if name.startswith(WAITS)]
    by_attempt = {(hold.run_id, hold.generation): hold for hold in holds}
    return Cell(int(item["total"]["N"]), by_attempt, spent, {each.run_id: each for each in waiting})


def _waiting(day: date, name: str, value: Any) -> Waiting:
    try:
        amount, since, until, what = value["S"].split()
        start, end = (datetime.fromtimestamp(float(at), UTC) for at in (since, until))
        return Waiting(_run_of(WAITS, name), start, end, int(amount), what == "machine")
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"the books of {day}: {name} cannot be read: {value!r}") from error


def _hold(day: date, name: str, value: Any) -> Hold | None:
    found = HOLD.match(name)
    if found is None:
        return None
    try:
        amount, until, state, rate = value["S"].split()
        end = datetime.fromtimestamp(float(until), UTC)
        run_id = _run_of("", found["run"])
        return Hold(run_id, int(found["generation"]), day, int(amount), end, state == "used", int(rate))
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"the books of {day}: {name} cannot be read: {value!r}") from error
