"""The line of throttled launches in DynamoDB: one item for each region, written only while EC2 throttles."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from spotrelay.aws.layout import EPOCH, Item, milliseconds
from spotrelay.aws.table import ABSENT, Condition, ConditionFailed, Table
from spotrelay.core.errors import Contention
from spotrelay.core.line import Pace, Turn, join

TAIL = "TAIL"
TRIES = 5  # against others who join at the same moment; only an empty line is contended


class DynamoLine:
    """A `LaunchLine` over the table of our layout."""

    def __init__(self, client: Any, table: str, pace: Pace | None = None) -> None:
        self._table = Table(client, table)
        self._pace = pace or Pace()
        self._known: dict[str, datetime] = {}  # how far the line reached when this process last stood in it

    def stands(self, region: str, now: datetime) -> bool:
        """Whether this process knows of launches that still wait."""
        return now < self._known.get(region, now)

    def join(self, region: str, now: datetime, spread: float) -> Turn:
        """Take the next turn."""
        doing = f"standing in line for a launch in {region}"
        for _ in range(TRIES):
            turn = self._try(region, now, spread, doing)
            if turn is not None:
                self._known[region] = turn.at
                return turn
        raise Contention(f"{doing}: others were faster {TRIES} times in a row")

    def _try(self, region: str, now: datetime, spread: float, doing: str) -> Turn | None:
        """The turn; None if somebody joined an empty line at the same moment."""
        try:
            return self._move_on(region, now, doing)
        except ConditionFailed as error:
            end = _end(error.found)
        turn, after = join(end, now, self._pace, spread)
        if not turn.taken or after is None:
            return turn
        try:
            self._begin(region, end, after, doing)
        except ConditionFailed:
            return None
        return turn

    def _move_on(self, region: str, now: datetime, doing: str) -> Turn:
        """One request where a line stands, however many join at once."""
        step = {":step": {"N": str(round(self._pace.step / timedelta(milliseconds=1)) or 1)}}
        bounds = {":now": _number(now), ":far": _number(now + self._pace.horizon)}
        condition = Condition("#tail > :now AND #tail <= :far", step | bounds)
        before = self._table.update(_key(region), TAIL, "SET #tail = #tail + :step", doing, condition, "UPDATED_OLD")
        end = _end(before)
        if end is None:
            raise ConditionFailed(None)
        return Turn(end, taken=True)

    def _begin(self, region: str, end: datetime | None, after: datetime, doing: str) -> None:
        still = ABSENT if end is None else Condition("#tail = :end", {":end": _number(end)})
        values = {**(still.values or {}), ":after": _number(after)}
        condition = Condition(still.expression, values)
        self._table.update(_key(region), TAIL, "SET #tail = :after", doing, condition)


def _key(region: str) -> str:
    return f"LINE#{region}"


def _number(at: datetime) -> dict[str, str]:
    return {"N": str(milliseconds(at))}


def _end(item: Item | None) -> datetime | None:
    return None if not item else EPOCH + timedelta(milliseconds=int(item["tail"]["N"]))
