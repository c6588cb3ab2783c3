"""The protocol's model: no history breaks a promise, every seeded bug does, and the model moves as the code does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from spotrelay.core.errors import Fenced, LeaseHeld
from spotrelay.core.lease import Lease, fence, may_commit, release, take
from spotrelay.core.run import ATTEMPT_MOVES, RUN_MOVES, Attempt, AttemptState, Intent, Run, RunStatus, status_of
from spotrelay.core.spec import Spec
from spotrelay.testing.clock import START
from tests.model.cells import BUGS, CELLS, GANG, PROTOCOL, Cell
from tests.model.search import HERE, Found, counterexample, missing_tools, search
from tests.model.tables import MOVES, moves

pytestmark = [pytest.mark.xdist_group("model"), pytest.mark.timeout(600)]

ATTEMPT_STATES, RUN_STATUSES = list(AttemptState), list(RunStatus)
DEAD_END = {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED}
NEVER_MADE = {
    (before, after)
    for before, after in RUN_MOVES
    if after in DEAD_END and before in (RunStatus.LAUNCHING, RunStatus.STARTING, RunStatus.RUNNING, RunStatus.HANDOVER)
} | {(RunStatus.WAITING, RunStatus.SUCCEEDED), (RunStatus.PAUSED, RunStatus.FAILED)}
"""Allowed by the code's table and made by no history: the end of a machine is recorded with the end of its attempt,
and an attempt that is over no longer decides how the run ends. The way out leads through STOPPING or WAITING.
And the model knows no money, which alone ends a run that rests."""


@pytest.fixture(scope="module")
def spin() -> None:
    """SPIN and a C compiler."""
    if missing := missing_tools():
        text = f"THE PROTOCOL IS NOT MODEL-CHECKED HERE: no {' and no '.join(missing)}; `make model` says how to get it"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)


@pytest.fixture(scope="module")
def found(spin: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Found]]:
    """What each cell's search found; one search for each, however many tests look at it."""
    yield {}


def searched(cell: Cell, found: dict[str, Found], folder: Path) -> Found:
    if cell.name not in found:
        found[cell.name] = search(cell, folder)
    return found[cell.name]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_no_history_breaks_a_promise(cell: Cell, found: dict[str, Found], tmp_path: Path) -> None:
    result = searched(cell, found, tmp_path)

    assert not result.problem, f"{result.problem}\n{counterexample(cell, tmp_path)[-6000:]}"
    assert result.states > 1000, "hardly anything was searched"


@pytest.mark.parametrize("cell", BUGS, ids=lambda cell: cell.name)
def test_a_seeded_bug_is_found(cell: Cell, spin: None, tmp_path: Path) -> None:
    assert search(cell, tmp_path).problem, f"promise {cell.promise} is broken, and the search says that all is well"


def test_every_bug_that_the_models_can_have_is_searched_for() -> None:
    written = {name for path in HERE.glob("*.pml") for name in re.findall(r"\bBUG_\w+", path.read_text())}

    assert written - {"BUG_x"} == {switch for cell in BUGS for switch in cell.switches if switch.startswith("BUG_")}


def test_the_models_moves_are_made_from_the_codes_table() -> None:
    assert MOVES.read_text() == moves(), "run `make docs`"


def test_every_move_of_the_codes_tables_is_made_by_the_model_and_no_other(
    found: dict[str, Found], tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = [searched(c, found, tmp_path_factory.mktemp("cell")) for c in CELLS if c.model == PROTOCOL]
    attempts = {(ATTEMPT_STATES[a - 1], ATTEMPT_STATES[b - 1]) for r in results for a, b in r.moves}
    runs = {(RUN_STATUSES[s[0] - 1], RUN_STATUSES[s[1] - 1]) for r in results for s in r.statuses if s[0] != s[1]}

    assert attempts == set(ATTEMPT_MOVES)
    assert runs == set(RUN_MOVES) - NEVER_MADE


def test_a_gang_makes_every_move_of_an_attempt_and_no_other(
    found: dict[str, Found], tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = [searched(c, found, tmp_path_factory.mktemp("cell")) for c in CELLS if c.model == GANG]

    assert {(ATTEMPT_STATES[a - 1], ATTEMPT_STATES[b - 1]) for r in results for a, b in r.moves} == set(ATTEMPT_MOVES)


def test_the_code_gives_every_run_of_the_model_the_status_that_the_model_gives_it(
    found: dict[str, Found], tmp_path_factory: pytest.TempPathFactory
) -> None:
    results = [searched(c, found, tmp_path_factory.mktemp("cell")) for c in CELLS if c.model == PROTOCOL]
    statuses = {status for result in results for status in result.statuses}

    assert len(statuses) > 100
    for _, after, outcome, paused, intent, *attempts in statuses:
        made = a_run(outcome, paused, intent, attempts)
        assert status_of(made) is RUN_STATUSES[after - 1], (outcome, paused, intent, attempts)


def a_run(outcome: int, paused: int, intent: int, attempts: list[int]) -> Run:
    """A run as the model had it."""
    made = []
    for generation, (state, live) in enumerate(zip(attempts[::2], attempts[1::2], strict=True), start=1):
        if state:
            machine = f"i-{generation:017x}" if live else None
            made.append(Attempt(generation, ATTEMPT_STATES[state - 1], machine))
    return Run(
        "run-1",
        Spec(("true",), ("g5.xlarge",)),
        START,
        attempts=tuple(made),
        intent=Intent(len(made), 1, {}, (), START) if intent else None,
        outcome=RUN_STATUSES[outcome - 1] if outcome else None,
        paused_at=START if paused else None,
    )


RULE = re.compile(r"^#define (\w+)(?:\(([\w, ]+)\))? +(.+)$", re.MULTILINE)
LEASES = [
    Lease("run-1", generation, holder or None, floor)
    for generation, holder, floor in product(range(4), ("", "i-1", "i-2"), range(1, 5))
]


def rules() -> dict[str, tuple[list[str], str]]:
    """The lease's rules in the model's file: parameters, and the condition as Python has it."""
    told = {}
    for name, parameters, condition in RULE.findall((HERE / "lease.pml").read_text()):
        text = condition.replace("&&", " and ").replace("||", " or ")
        text = re.sub(r"!(?!=)", " not ", text)
        told[name] = ([p.strip() for p in parameters.split(",") if p.strip()], text)
    return told


def holds(rule: str, lease: Lease, *arguments: object) -> bool:
    """What the model's rule says of a lease of the code."""
    known = rules()
    names: dict[str, object] = {"lgen": lease.generation, "holder": lease.holder or 0, "floor": lease.floor}

    def value(name: str, *given: object) -> bool:
        parameters, condition = known[name]
        inner = {**names, **dict(zip(parameters, given, strict=True))}
        others = {n: (lambda *g, n=n: value(n, *g)) for n, (p, _) in known.items() if p and n != name}
        plain = {n: value(n) for n, (p, _) in known.items() if not p and n != name}
        return bool(eval(condition, {}, {**inner, **others, **plain}))  # our own file

    return value(rule, *arguments)


@pytest.mark.parametrize("holder", ["i-1", "i-2"])
@pytest.mark.parametrize("generation", [1, 2, 3, 4])
def test_the_model_takes_commits_and_releases_a_lease_when_the_code_does(generation: int, holder: str) -> None:
    for lease in LEASES:
        taken: Lease | None = None
        try:
            taken = take(lease, generation, holder)
            answer = "taken"
        except Fenced:
            answer = "fenced"
        except LeaseHeld:
            answer = "held"
        fenced = holds("FENCED_OUT", lease, generation, holder)
        may = holds("MAY_TAKE", lease, generation, holder)
        assert answer == ("fenced" if fenced else "taken" if may else "held"), lease
        if taken is not None:
            assert (taken.generation, taken.holder, taken.floor) == (generation, holder, lease.floor)
        mine = holds("MAY_COMMIT", lease, generation, holder)
        assert mine == may_commit(lease, generation, holder), lease
        assert (release(lease, generation, holder) != lease) == mine
        assert release(lease, generation, holder).holder == (None if mine else lease.holder)


@pytest.mark.parametrize("floor", [1, 2, 3, 4])
def test_the_model_fences_as_the_code_does(floor: int) -> None:
    for lease in LEASES:
        raised = floor > lease.floor
        shut_out = raised and holds("SHUTS_OUT", lease, floor)

        after = fence(lease, floor)

        assert (after.floor, after.holder) == (max(floor, lease.floor), None if shut_out else lease.holder)
