"""Each rule of the verdict finds what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spotrelay.core.checkpoint import CheckpointId
from spotrelay.core.placement import Pool
from spotrelay.core.run import Attempt, AttemptState, Entry, Run, RunStatus
from spotrelay.core.spec import Spec
from tests.acceptance_aws.evidence import Committed, Evidence, Trained
from tests.acceptance_aws.machines import Machine
from tests.acceptance_aws.verdict import OF_AN_HEIR, RULES, figures, judge

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPEC = Spec(command=("python", "train.py"), instance_types=("t3a.medium",))
POOL = Pool("us-east-1", "us-east-1a", "t3a.medium")


def attempt(generation: int, machine: str, begin: int, end: int) -> Attempt:
    moments = {"reserved_at": begin, "launched_at": begin, "running_at": begin + 1, "first_step_at": begin + 2}
    times: dict[str, Any] = {name: START + minute * MINUTE for name, minute in moments.items()}
    over = START + end * MINUTE
    return Attempt(
        generation, AttemptState.ENDED, machine, POOL, 0.01, **times, ended_at=over, machine_gone_at=over, last_step=9
    )


def machine(instance_id: str, run_id: str, generation: int, reason: str) -> Machine:
    return Machine(instance_id, run_id, generation, "terminated", "t3a.medium", "us-east-1a", START, reason)


def trained(run_id: str, attempts: tuple[Attempt, ...], machines: list[Machine], timeline: list[Entry]) -> Trained:
    run = Run(run_id, SPEC, START, status=RunStatus.SUCCEEDED, attempts=attempts, ended_at=START + 30 * MINUTE)
    commits = [Committed(CheckpointId(a.generation, 1), 5, START + a.generation * MINUTE) for a in attempts]
    return Trained(run, timeline, machines, commits, "d", "d", {a.generation: {0: 1.5, 1: 1.25} for a in attempts})


def good() -> Evidence:
    attempts = (attempt(1, "i-1", 0, 10), attempt(2, "i-2", 11, 30))
    machines = [machine("i-1", "a", 1, "Server.SpotInstanceTermination"), machine("i-2", "a", 2, "Client.Shutdown")]
    told = [("verified", 1), ("notice", 1), ("ended", 1), *((kind, 2) for kind in OF_AN_HEIR)]
    timeline = [Entry(kind, "why", START, generation, {"checkpoint": "1.1"}) for kind, generation in told]
    reference = trained("b", (attempt(1, "i-3", 0, 20),), [machine("i-3", "b", 1, "Client.Shutdown")], [])
    return Evidence(trained("a", attempts, machines, timeline), reference, "i-1", [])


def interrupted(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, interrupted=replace(evidence.interrupted, **changes))


def reference(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, reference=replace(evidence.reference, **changes))


def without(evidence: Evidence, kind: str) -> Evidence:
    return interrupted(evidence, timeline=[e for e in evidence.interrupted.timeline if e.kind != kind])


def late_commit(evidence: Evidence) -> Evidence:
    """A zombie's: its manifest was written when its successor had committed already."""
    zombie = Committed(CheckpointId(1, 2), 6, START + 9 * MINUTE)
    return interrupted(evidence, commits=[*evidence.interrupted.commits, zombie])


SPOILT: list[tuple[str, Callable[[Evidence], Evidence]]] = [
    (
        "both runs succeeded",
        lambda e: interrupted(e, run=replace(e.interrupted.run, status=RunStatus.FAILED)),
    ),
    ("EC2 really took the machine back", lambda e: replace(e, taken="i-2")),
    ("EC2 really took the machine back", lambda e: replace(e, taken="i-9")),
    ("the other run was left alone", lambda e: reference(e, machines=e.reference.machines * 2)),
    ("final weights equal those of the uninterrupted run", lambda e: reference(e, digest_printed="x")),
    ("final weights equal those of the uninterrupted run", lambda e: interrupted(e, digest_stored="")),
    ("every loss equals that of the uninterrupted run", lambda e: interrupted(e, losses={1: {0: 1.5}, 2: {1: 9.0}})),
    ("every loss equals that of the uninterrupted run", lambda e: interrupted(e, losses={})),
    (
        "one launch for each loss",
        lambda e: interrupted(e, machines=[*e.interrupted.machines, machine("i-4", "a", 2, "")]),
    ),
    ("one launch for each loss", lambda e: interrupted(e, machines=e.interrupted.machines[:1])),
    ("nobody committed after a successor", late_commit),
    ("nobody committed after a successor", lambda e: reference(e, commits=[])),
    ("resumed only from verified checkpoints", lambda e: without(e, "verified")),
    ("every fact is recorded", lambda e: without(e, "notice")),
    ("every fact is recorded", lambda e: without(e, "first-step")),
    ("nothing was left running", lambda e: replace(e, still_running=e.interrupted.machines[:1])),
]


def test_a_good_test_passes_every_rule() -> None:
    assert [finding for finding in judge(good()) if not finding.ok] == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILT, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(SPOILT)])
def test_a_rule_finds_what_it_is_there_for(rule: str, spoil: Callable[[Evidence], Evidence]) -> None:
    failed = [finding.rule for finding in judge(spoil(good())) if not finding.ok]

    assert rule in failed


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in SPOILT} == set(RULES)


def test_the_figures_count_what_was_lost() -> None:
    found = figures(good())

    assert found["losses"] == 1 and found["machines"] == 2 and found["digests_equal"]
    assert found["rto_s"] == [180.0]
