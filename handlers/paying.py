"""A response's part in the account's books: money is set aside before a launch and piece by piece after it.

What a saved change tells (a machine has come, a machine is gone) is entered when everything else is done, at best
effort: until then a hold counts in full, and one whose machine never came is free again when its time is over.

Whoever is refused is written into the day's books as waiting, and is looked at again once they have room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from handlers.control import ControlPlane
from handlers.settings import MONEY_REFUSED
from spotrelay.core.budget import Budget, Hold, Waiting, called, room_in
from spotrelay.core.claim import claim
from spotrelay.core.decisions import Reserve
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.facts import Fact, MoneyBack, MoneyRefused, Paid
from spotrelay.core.run import Intent, Run
from spotrelay.core.spending import (
    NO_MONEY,
    WAITS,
    closings,
    confirmations,
    dollars,
    hold_for_launch,
    hold_for_machine,
    is_broke,
    not_held,
)


def pay_for_launch(intent: Intent, run: Run, plane: ControlPlane) -> Paid | MoneyRefused | None:
    """Set a launch's first piece of time aside; None when the account has no ceiling.

    Raises:
        Unavailable, Contention: the books do not answer. Nothing may be sent.
    """
    budget = plane.site.budget
    if budget is None:
        return None
    hold = hold_for_launch(run, intent, budget, plane.clock.now())
    if hold is None:
        return MoneyRefused(intent.generation, "the account has a budget, and nobody knows what this launch costs")
    return _set_aside(hold, hold.amount, budget, plane)


def refused_again(decision: Reserve, run: Run, plane: ControlPlane) -> MoneyRefused | None:
    """Whether a run that was refused money would be refused this launch too: asked before it is written down."""
    budget, books, now = plane.site.budget, plane.books, plane.clock.now()
    intent = claim(run, decision, now, plane.site).intent if run.broke_until is not None else None
    if budget is None or books is None or intent is None:
        return None
    hold = hold_for_launch(run, intent, budget, now)
    try:
        if hold is None or hold.amount <= room_in(books.cells(hold.day), budget.ceiling, now):
            return None
    except SpotrelayError:
        return None  # the launch itself finds out
    return _refused(hold, hold.amount, False, budget, plane)


def money_is_back(run: Run, plane: ControlPlane) -> MoneyBack | None:
    """Whether it is this run's turn to be paid, among all that wait for the account's money."""
    budget, books, now = plane.site.budget, plane.books, plane.clock.now()
    if budget is None or books is None or not is_broke(run, now):
        return None
    try:
        cells = books.cells(now.date())
    except SpotrelayError as error:
        plane.telemetry.warning("the account's books cannot be read", run_id=run.run_id, cause=str(error))
        return None
    its_turn = any(each.run_id == run.run_id for each in called(cells, budget.ceiling, now))
    return MoneyBack() if its_turn else None


def pay_for_machine(generation: int, run: Run, plane: ControlPlane) -> tuple[Fact, ...]:
    """Set the next piece of a machine's time aside.

    Raises:
        Unavailable, Contention: the books do not answer. The machine goes on.
    """
    budget, attempt = plane.site.budget, run.attempt(generation)
    if budget is None or attempt is None:
        return ()
    hold = hold_for_machine(run, attempt, budget, plane.clock.now())
    return (_set_aside(hold, not_held(run, attempt, hold), budget, plane),)


def give_back(intent: Intent, run: Run, plane: ControlPlane) -> None:
    """No machine came of this launch: what was set aside for it is free again."""
    books, day = plane.books, plane.clock.now().date()
    if books is not None:
        _at_best_effort(plane, run.run_id, lambda: books.close(run.run_id, intent.generation, day, 0))


class Paying:
    """What one response has learnt about holds by its end."""

    def __init__(self, plane: ControlPlane, run_id: str) -> None:
        self._plane = plane
        self._run_id = run_id
        self._entries: list[Callable[[], None]] = []

    def note(self, before: Run, after: Run) -> None:
        """Keep what a saved change means for the books."""
        books = self._plane.books
        if books is None or self._plane.site.budget is None:
            return
        self._entries += [partial(books.confirm, hold) for hold in confirmations(before, after)]
        self._entries += [partial(books.close, self._run_id, *closing) for closing in closings(before, after)]
        if before.broke_until is not None and (after.outcome is not None or after.paused):
            self._entries.append(partial(books.leave, self._plane.clock.now().date(), self._run_id))

    def pass_on(self) -> None:
        """Enter it. Asked when everything else is done."""
        entries, self._entries = self._entries, []
        for entry in entries:
            _at_best_effort(self._plane, self._run_id, entry)


def _set_aside(hold: Hold, more: int, budget: Budget, plane: ControlPlane) -> Paid | MoneyRefused:
    """Have this hold, which is so much more than what its attempt holds already."""
    books = plane.books
    assert books is not None, "a budget without books"
    if books.set_aside(hold, budget.ceiling, plane.clock.now()):
        return Paid(hold.generation, hold.until)
    return _refused(hold, more, hold.used, budget, plane)


def _refused(hold: Hold, more: int, machine: bool, budget: Budget, plane: ControlPlane) -> MoneyRefused:
    """The refusal, with the run written down as waiting."""
    books, now = plane.books, plane.clock.now()
    plane.telemetry.count(MONEY_REFUSED)
    waiting = Waiting(hold.run_id, now, now + WAITS * plane.site.timings.scale, max(more, 0), machine)
    if books is not None:
        _at_best_effort(plane, hold.run_id, lambda: books.wait(hold.day, waiting))
    wanted = f"{dollars(hold.amount)} until {hold.until:%H:%M} UTC, of {dollars(budget.ceiling)} a day"
    return MoneyRefused(hold.generation, f"{NO_MONEY}: {wanted}")


def _at_best_effort(plane: ControlPlane, run_id: str, entry: Callable[[], object]) -> None:
    try:
        entry()
    except SpotrelayError as error:
        plane.telemetry.warning("not entered in the account's books", run_id=run_id, cause=str(error))
