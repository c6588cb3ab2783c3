"""One-shot triggers: a machine is killed or stopped exactly before or after a request of its is applied."""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import dataclass, field
from typing import Any

_MATCHED = ("service", "action", "instance_id", "caller", "path", "target")
_PATTERNS = ("caller", "path", "target")
_DEEDS = ("kill-group", "stop-group")
_MOMENTS = ("before", "after")


class BadTrigger(Exception):
    """A trigger was asked for in words that this cloud does not know."""


@dataclass
class Trigger:
    """What to wait for, and what to do then."""

    number: int
    match: dict[str, str]
    nth: int
    """starts at 1"""
    deed: str
    moment: str
    victim: str | None
    """instance id; None is the machine that sent the request"""
    seen: int = 0
    fired: threading.Event = field(default_factory=threading.Event)
    fired_on: dict[str, Any] | None = None

    def fits(self, facts: dict[str, Any]) -> bool:
        """Whether a request is of the kind waited for."""
        for name, wanted in self.match.items():
            actual = str(facts.get(name) or "")
            if (not re.search(wanted, actual)) if name in _PATTERNS else (actual != wanted):
                return False
        return True

    def described(self) -> dict[str, Any]:
        """Its state, for the control API."""
        return {
            "number": self.number,
            "match": {**self.match, "nth": self.nth},
            "do": {"what": self.deed, "moment": self.moment, "instance_id": self.victim},
            "seen": self.seen,
            "fired": self.fired.is_set(),
            "fired_on": self.fired_on,
        }


class Triggers:
    """The triggers that are set, in the order in which they were; thread-safe."""

    def __init__(self) -> None:
        self._all: dict[int, Trigger] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def add(self, match: dict[str, Any], do: dict[str, Any]) -> Trigger:
        """Set a trigger.

        Args:
            match: any of service, action, instance_id (equal), caller, path, target (regular expressions, searched),
                and `nth` (the how manieth such request; 1 unless told).
            do: `what` is kill-group or stop-group, `moment` is before or after, `instance_id` another victim than
                the machine that sent the request.

        Raises:
            BadTrigger: a word that is not one of these, or a pattern that is no regular expression.
        """
        unknown = set(match) - {*_MATCHED, "nth"} | set(do) - {"what", "moment", "instance_id"}
        if unknown:
            raise BadTrigger(f"unknown words in a trigger: {', '.join(sorted(unknown))}")
        if do.get("what") not in _DEEDS or do.get("moment") not in _MOMENTS:
            raise BadTrigger(f"a trigger does one of {_DEEDS} at one of {_MOMENTS}, not {do}")
        for name in _PATTERNS:
            try:
                re.compile(str(match.get(name, "")))
            except re.error as why:
                raise BadTrigger(f"{name} is no regular expression: {why}") from why
        plain = {name: str(value) for name, value in match.items() if name != "nth"}
        trigger = Trigger(
            next(self._numbers), plain, int(match.get("nth", 1)), do["what"], do["moment"], do.get("instance_id")
        )
        with self._lock:
            self._all[trigger.number] = trigger
        return trigger

    def get(self, number: int) -> Trigger:
        """A trigger by number.

        Raises:
            BadTrigger: there is none of that number.
        """
        with self._lock:
            if number not in self._all:
                raise BadTrigger(f"there is no trigger number {number}")
            return self._all[number]

    def fire(self, facts: dict[str, Any]) -> Trigger | None:
        """Count a request; the trigger whose time has come with it, which then never fires again."""
        with self._lock:
            fitting = [t for t in self._all.values() if not t.fired.is_set() and t.fits(facts)]
            for trigger in fitting:
                trigger.seen += 1
            due = next((t for t in fitting if t.seen >= t.nth), None)
            if due is not None:
                due.fired_on = dict(facts)
                due.fired.set()
            return due

    def cancel(self, number: int) -> None:
        """Take a trigger back."""
        with self._lock:
            self._all.pop(number, None)
