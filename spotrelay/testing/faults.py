"""Faults as values: a wrapper round any port that crashes, loses replies, throttles or reads stale.

A fault is drawn for every call, from a script that a test writes or hypothesis draws::

    store = faulty(MemoryStore(), Script({"save": [Fault.NONE, Fault.LOST_REPLY]}))
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from spotrelay.core.errors import Contention, OutcomeUnknown, SpotrelayError, Unavailable

P = TypeVar("P")

READS = frozenset(
    {
        "load", "run_of", "owners", "due", "all_runs", "timeline", "read_run", "read_lease", "checkpoints",
        "get", "stream", "head", "list_versions", "find", "find_all", "states", "managed", "prices", "launches_allowed",
    }
)  # fmt: skip
ITERATED = frozenset({"all_runs", "list_versions", "managed"})  # reads that answer with an iterator
STREAMED = frozenset({"stream"})  # reads whose answer arrives bit by bit, and is lost in its middle
PURE = frozenset({"prepare", "now"})  # never touch the world, so never fail


class Fault(Enum):
    """What may happen to one call of a port."""

    NONE = "none"
    CRASH_BEFORE = "crash before"  # the process dies before the request is sent
    CRASH_AFTER = "crash after"  # the process dies after it took effect
    LOST_REPLY = "lost reply"  # it takes effect, the caller hears OutcomeUnknown
    THROTTLE = "throttle"  # it does not take effect, the caller hears Contention
    UNAVAILABLE = "unavailable"  # it does not take effect, the caller hears Unavailable
    STALE = "stale"  # a read answers what it answered to the same question before


class Crash(BaseException):
    """The process died here. No `except Exception` survives it, as none survives SIGKILL."""


Draw = Callable[[str], Fault]


class Script:
    """Faults by method name, in the order of its calls; no fault after the last one.

    The key `"*"` speaks about every call that has no list of its own.
    """

    def __init__(self, faults: Mapping[str, Iterable[Fault]] | Iterable[Fault] = ()) -> None:
        by_method = faults if isinstance(faults, Mapping) else {"*": faults}
        self._lock = threading.Lock()
        self._left: dict[str, Iterator[Fault]] = {name: iter(line) for name, line in by_method.items()}

    def __call__(self, method: str) -> Fault:
        with self._lock:
            return next(self._left.get(method, self._left.get("*", iter(()))), Fault.NONE)


def at(method: str, call: int, fault: Fault) -> Script:
    """A script with one fault, at the `call`-th call of a method; 1 is the first."""
    return Script({method: [Fault.NONE] * (call - 1) + [fault]})


def faulty(port: P, draw: Draw) -> P:
    """The port with faults drawn for each call. Attributes that are no port methods pass through."""
    return cast(P, _Faulty(port, draw))


class _Faulty:
    def __init__(self, port: Any, draw: Draw) -> None:
        self._port = port
        self._draw = draw
        self._answers: dict[tuple[str, str], Any] = {}

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._port, name)
        if name in PURE or name.startswith("_") or not callable(target):
            return target
        return lambda *args, **named: self._call(name, target, args, named)

    def _call(self, name: str, target: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        fault = self._draw(name)
        question = (name, repr((args, sorted(named.items()))))
        _before(fault, name)
        if fault is Fault.STALE and question in self._answers:
            return _given(name, self._answers[question])
        if fault is Fault.LOST_REPLY and name in STREAMED:
            return _CutStream(target(*args, **named), name)
        if fault is Fault.LOST_REPLY:
            _lose(name, target, args, named)
        answer = target(*args, **named)
        if fault is Fault.CRASH_AFTER:
            raise Crash(f"after {name}")
        if name in READS - STREAMED:
            self._answers[question] = list(answer) if name in ITERATED else answer
            return _given(name, self._answers[question])
        return answer


class _CutStream:
    """A stream that breaks off before the view that reaches beyond the object's middle."""

    def __init__(self, stream: Any, name: str) -> None:
        self.size = stream.size
        self._stream = stream
        self._name = name
        self._filled = 0

    def fill(self, view: memoryview) -> None:
        self._filled += len(view)
        if 2 * self._filled > self.size:
            raise Unavailable(f"{self._name}: the answer broke off")
        self._stream.fill(view)

    def __enter__(self) -> _CutStream:
        self._stream.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stream.__exit__(*failure)


def _given(name: str, answer: Any) -> Any:
    return iter(answer) if name in ITERATED else answer


def _before(fault: Fault, name: str) -> None:
    if fault is Fault.CRASH_BEFORE:
        raise Crash(f"before {name}")
    if fault is Fault.THROTTLE:
        raise Contention(f"{name} was throttled; nothing was written")
    if fault is Fault.UNAVAILABLE:
        raise Unavailable(f"{name}: the service does not answer")


def _lose(name: str, target: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> None:
    try:
        target(*args, **named)
    except SpotrelayError as error:
        raise _unheard(name) from error
    raise _unheard(name)


def _unheard(name: str) -> SpotrelayError:
    if name in READS:
        return Unavailable(f"{name}: the answer was lost")
    return OutcomeUnknown(f"{name}: the reply was lost")
