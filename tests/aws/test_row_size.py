"""The row of the run that has lived through most, with every field at its longest, against what an item may hold.

The values are made from the classes themselves, so that a field which somebody adds is in them at once.
"""

from __future__ import annotations

import random
import types
import typing
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import pytest

from spotrelay.aws import layout
from spotrelay.core.decide import decide
from spotrelay.core.decisions import Conclude, Reserve
from spotrelay.core.errors import InvalidInput, UnknownFormat
from spotrelay.core.record import REFUSALS_KEPT
from spotrelay.core.room import ROW_BYTES, bytes_for, why_full
from spotrelay.core.row import IN_THE_ROW, encode_run
from spotrelay.core.run import LOADED_BESIDE, Attempt, AttemptState, Member, Run
from spotrelay.core.site import Site
from spotrelay.core.spec import MOST_LAUNCHES, MOST_NODES, Limits, Spec
from spotrelay.testing.contracts.samples import NOON, new_run

ITEM = 400 * 1024  # bytes; DynamoDB Developer Guide, "Item size"
MARGIN = 0.75  # of it, for what one field more would cost a few releases long
LENGTHS = {  # of texts that are bounded; any other is taken for a sentence
    "instance_id": 19, "region": 25, "zone": 25, "instance_type": 24, "market": 14, "reservation": 35,
    "noticed_by": 24, "resumed_checkpoint": 12, "code": 40, "message": 1500, "ended_why": 260,
}  # fmt: skip
SENTENCE = 200


class Longest:
    """Values of any class of ours with nothing left out, no two alike."""

    def __init__(self, seed: int = 1) -> None:
        self.dice = random.Random(seed)
        self.words = ["".join(self.dice.choices("abcdefghiklmnoprstuwy", k=n % 9 + 2)) for n in range(400)]

    def make(self, kind: Any, **given: Any) -> Any:
        hints = typing.get_type_hints(kind)
        made = {f.name: self._value(hints[f.name], f.name) for f in fields(kind) if f.name not in given}
        return kind(**made, **given)

    def _value(self, hint: Any, name: str) -> Any:
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            return self._value(next(each for each in typing.get_args(hint) if each is not type(None)), name)
        if typing.get_origin(hint) is tuple:
            return (self._value(typing.get_args(hint)[0], name),)
        if typing.get_origin(hint) is dict:
            return {self._text(name): self._text(name)}
        if is_dataclass(hint):
            return self.make(hint)
        if issubclass(hint, Enum):
            return max(hint, key=lambda each: len(str(each.value)))
        return self._plain(hint, name)

    def _plain(self, hint: Any, name: str) -> Any:
        plain: dict[Any, Any] = {
            bool: lambda: True,
            int: lambda: self.dice.randrange(10**8, 10**9),
            float: lambda: self.dice.random(),
            datetime: lambda: NOON + timedelta(microseconds=self.dice.randrange(10**13)),
            timedelta: lambda: timedelta(microseconds=self.dice.randrange(10**13)),
            str: lambda: self._text(name),
        }
        assert hint in plain, f"say here what {name}, a {hint}, is at its longest"
        return plain[hint]()

    def _text(self, name: str) -> str:
        length = LENGTHS.get(name, SENTENCE)
        if length < 50:
            return "".join(self.dice.choices("0123456789abcdef", k=length))
        return " ".join(self.dice.choices(self.words, k=length))[:length]


def old_run(attempts: int, nodes: int) -> Run:
    """A run with so many attempts of so many machines, and all that may be written about them."""
    longest = Longest()
    members = [tuple(longest.make(Member) for _ in range(nodes)) if nodes > 1 else () for _ in range(attempts)]
    lived = tuple(longest.make(Attempt, generation=n + 1, members=each) for n, each in enumerate(members))
    spec = replace(Spec(("python", "train.py"), ("g5.xlarge",)), nodes=nodes)
    refusal = typing.get_args(typing.get_type_hints(Run)["refusals"])[0]
    refusals = tuple(longest.make(refusal) for _ in range(REFUSALS_KEPT))
    beside: dict[str, Any] = dict.fromkeys(LOADED_BESIDE, ()) | {"lease": None}
    made = longest.make(Run, spec=spec, attempts=lived, refusals=refusals, schema=1, **beside)
    return typing.cast(Run, made)


def size_of(item: layout.Item) -> int:
    """Bytes of an item, as DynamoDB counts them: names and values."""
    found = 0
    for name, attribute in item.items():
        (value,) = attribute.values()
        found += len(name) + len(value if isinstance(value, bytes) else value.encode())
    return found


def most_attempts(nodes: int) -> int:
    """How many attempts a run of so many machines may have, however often it is retried."""
    return ROW_BYTES // bytes_for(1, nodes if nodes > 1 else 0)


@pytest.mark.parametrize("nodes", [1, 2, 8, MOST_NODES])
def test_the_longest_run_fits_into_its_row_with_room_to_spare(nodes: int) -> None:
    run = old_run(most_attempts(nodes), nodes)

    item = layout.run_item(run, "w" * 36)

    assert size_of(item) < ITEM * MARGIN
    assert layout.read_run(item) == run
    assert why_full(run)


@pytest.mark.parametrize("nodes", [1, 2, 8, MOST_NODES])
def test_what_an_attempt_is_taken_to_need_is_what_it_needs_at_most(nodes: int) -> None:
    few, many = (size_of(layout.run_item(old_run(most_attempts(nodes) * n // 4, nodes), "w")) for n in (2, 4))

    more = most_attempts(nodes) - most_attempts(nodes) * 2 // 4
    assert (many - few) / more <= bytes_for(1, nodes if nodes > 1 else 0)


@pytest.mark.parametrize("nodes", [1, 2, MOST_NODES])
def test_all_launches_that_a_spec_may_ask_for_fit(nodes: int) -> None:
    assert most_attempts(nodes) >= MOST_LAUNCHES // nodes


def test_a_run_whose_record_is_full_ends_with_the_reason_instead_of_failing_at_its_save() -> None:
    spec = Spec(("train",), ("g5.xlarge",), limits=Limits(max_launches=MOST_LAUNCHES))
    ended = tuple(Attempt(n + 1, AttemptState.ENDED) for n in range(most_attempts(1)))  # of retries and lost launches
    run = Run("r1", spec, NOON, attempts=ended)
    site = Site((("eu-west-1", "eu-west-1a"),))

    decision, before = decide(run, NOON, site), decide(replace(run, attempts=ended[:-1]), NOON, site)

    assert isinstance(decision, Conclude) and "as many as its record can hold: submit it anew" in decision.why
    assert isinstance(before, Reserve)


def test_a_long_row_is_refused_by_an_older_reader_by_its_schema() -> None:
    item = layout.run_item(old_run(100, 1), "w")

    assert item["schema"] == {"N": "2"}
    with pytest.raises(UnknownFormat, match="upgrade"):
        layout.read_run(item | {"schema": {"N": "3"}})
    with pytest.raises(InvalidInput, match="cannot be read"):
        layout.read_run(item | {"body": {"B": item["body"]["B"][:-9]}})


def test_a_run_in_a_few_attempts_is_readable_text_in_its_row() -> None:
    run = replace(new_run("r1"), attempts=tuple(Attempt(n + 1) for n in range(20)))

    assert layout.run_item(run, "w")["body"] == {"S": encode_run(run)}


def test_every_field_of_the_row_is_at_its_longest_here() -> None:
    run = old_run(1, 2)
    blank = Run("r", run.spec, NOON)

    same = [name for name in IN_THE_ROW if getattr(run, name) == getattr(blank, name)]

    assert set(same) == {"schema", "spec"}
    assert all(getattr(run.attempts[0].members[1], f.name) is not None for f in fields(Member))
