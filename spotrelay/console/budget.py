"""`spotrelay budget`: what the account has set aside and spent in a day, and for which runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from spotrelay.console.output import table, tell
from spotrelay.core.budget import MICRO, NO_CEILING, Books, Cell, hourly
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spending import dollars

if TYPE_CHECKING:
    from spotrelay.aws.clients import Clients
    from spotrelay.aws.stack import Stack

NOT_COUNTED = "none"  # the output's value where the stack counts no money


def day_of(text: str | None, now: datetime) -> date:
    """The day that was asked for, else today's, in UTC.

    Raises:
        InvalidInput: the text is no date.
    """
    try:
        return now.date() if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--day: {text!r} is no date; write it as 2026-11-24") from error


def ceiling_of(stack: Stack) -> float | None:
    """Dollars a day that the stack allows; infinite where it only counts; None where it does not even count."""
    told = stack.outputs.get("DayDollars", NOT_COUNTED)
    if told == NOT_COUNTED:
        return None
    return float("inf") if float(told) >= NO_CEILING else float(told)


def books_of(clients: Clients, stack: Stack) -> Books:
    """The stack's books."""
    from spotrelay.aws.budget_cells import DynamoCells

    return Books(DynamoCells(clients.client("dynamodb"), stack.table))


def account(cells: Iterable[Cell], ceiling: float | None, day: date, now: datetime) -> dict[str, Any]:
    """A day's books as one object: the keys are stable."""
    found = tuple(cells)
    holds = sorted((h for cell in found for h in cell.holds.values()), key=lambda h: (h.run_id, h.generation))
    limited = ceiling is not None and ceiling != float("inf")
    total = sum(cell.total for cell in found)
    return {
        "day": day.isoformat(),
        "ceiling": ceiling if limited else None,
        "counted": ceiling is not None,
        "set_aside": total / MICRO,
        "left": max(ceiling - total / MICRO, 0.0) if limited and ceiling is not None else None,
        "dollars_per_hour": hourly(found, now) / MICRO,
        "holds": [
            {
                "run_id": hold.run_id,
                "generation": hold.generation,
                "dollars": hold.amount / MICRO,
                "dollars_per_hour": hold.rate / MICRO,
                "until": hold.until,
                "machine": hold.used,
            }
            for hold in holds
        ],
        "ended": [
            {"run_id": run_id, "dollars": spent / MICRO}
            for run_id, spent in sorted((run_id, spent) for cell in found for run_id, spent in cell.spent.items())
        ],
        "waiting": [
            {"run_id": each.run_id, "dollars": each.amount / MICRO, "since": each.since, "machine": each.machine}
            for each in sorted((w for cell in found for w in cell.waiting.values()), key=lambda w: w.since)
            if each.until > now
        ],
    }


def show(about: dict[str, Any]) -> None:
    """The books for a person."""
    if not about["counted"]:
        tell("this stack counts no money: set budget_dollars_per_day or spend_dollars_per_hour, and deploy it again")
        return
    of = f" of ${about['ceiling']:,.2f}" if about["ceiling"] is not None else ", without a ceiling"
    left = f", ${about['left']:,.2f} left" if about["left"] is not None else ""
    tell(f"{about['day']} (UTC): ${about['set_aside']:,.2f} spent or set aside{of}{left}")
    tell(f"machines cost ${about['dollars_per_hour']:,.2f} an hour at this moment")
    table(("RUN", "ATTEMPT", "SET ASIDE TODAY", "UNTIL (UTC)", "FOR"), _rows(about))


def _rows(about: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What is held, then what those that are over have spent, then who has to wait."""
    for hold in about["holds"]:
        what = "machine" if hold["machine"] else "launch"
        yield hold["run_id"], str(hold["generation"]), _dollars(hold), f"{hold['until']:%H:%M}", what
    for run in about["ended"]:
        yield run["run_id"], "", _dollars(run), "", "spent by machines that are gone"
    for run in about["waiting"]:
        what = "its machine" if run["machine"] else "a launch"
        yield run["run_id"], "", "$0.00", "", f"waits since {run['since']:%H:%M} for {_dollars(run)} for {what}"


def _dollars(about: dict[str, Any]) -> str:
    return dollars(round(about["dollars"] * MICRO))
