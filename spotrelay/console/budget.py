"""`spotrelay budget`: what the account has set aside and spent in a day, and for which runs."""

from __future__ import annotations

from collections.abc import Iterable
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
    rows = (
        (
            hold["run_id"],
            str(hold["generation"]),
            dollars(round(hold["dollars"] * MICRO)),
            f"{hold['until']:%H:%M}",
            "machine" if hold["machine"] else "launch",
        )
        for hold in about["holds"]
    )
    table(("RUN", "ATTEMPT", "SET ASIDE TODAY", "UNTIL (UTC)", "FOR"), rows)
