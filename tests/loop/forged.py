"""Evidence of a demo in which all went well, for tests that then forge one part of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from spotrelay.console.demo.evidence import Evidence, Machine, Request
from spotrelay.console.demo.scenes import Reclaim
from spotrelay.core.checkpoint import Checkpoint, Commit, Verdict
from spotrelay.core.live import EXIT_FENCED, ExitReport
from spotrelay.core.placement import Pool
from spotrelay.core.run import Attempt, AttemptState, Entry, Run, RunStatus
from spotrelay.core.spec import Spec

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
LAST = 7
DIGEST = "d" * 64
TYPES = {4: "g6.2xlarge"}  # of attempts that did not get the first type


def machine_id(generation: int) -> str:
    return f"i-{generation:017x}"


def evidence() -> Evidence:
    """Six machines lost in five ways, and a seventh that finished."""
    losses = {step: 5.0 - step / 100 for step in range(10 * LAST)}
    return Evidence(
        run=_run(),
        timeline=list(_timeline()),
        reclaims=_reclaims(),
        requests=_requests(),
        machines=[
            Machine(machine_id(g), g, "terminated", TYPES.get(g, "g5.xlarge"), "us-east-1a") for g in range(1, LAST + 1)
        ],
        digest_printed=DIGEST,
        digest_stored=DIGEST,
        digest_reference=DIGEST,
        losses={g: {s: losses[s] for s in range(10 * (g - 1), 10 * g)} for g in range(1, LAST + 1)},
        losses_reference=losses,
    )


def _at(generation: int, second: float = 0) -> datetime:
    return START + timedelta(seconds=60 * generation + second)


def _reclaims() -> list[Reclaim]:
    ways: list[dict[str, Any]] = [
        {"letter": "a", "noticed": True},
        {"letter": "b", "partial": "2.2"},
        {
            "letter": "c",
            "noticed": True,
            "refused_in_fleets": ("g5.xlarge", "g5.2xlarge"),
            "refused_by_5xx": "g6.xlarge",
        },
        {"letter": "d", "damaged": "4.2"},
        {"letter": "e", "zombie": "before", "woken_at_s": _at(6, 20).timestamp()},
        {"letter": "e", "zombie": "after", "woken_at_s": _at(7, 20).timestamp()},
    ]
    return [
        Reclaim(
            how="reclaimed",
            instance_id=machine_id(g),
            generation=g,
            step=10 * g,
            pool="g5.xlarge/us-east-1a/spot",
            at_s=_at(g, 50).timestamp(),
            **way,
        )
        for g, way in enumerate(ways, 1)
    ]


def _requests() -> list[Request]:
    found = [Request(_at(4, -5).timestamp(), "", "launch", "", 500, "InsufficientInstanceCapacity")]
    for generation in range(1, LAST + 1):
        instance = machine_id(generation)
        found.append(Request(_at(generation, 5).timestamp(), instance, "take", "", 200))
        found.append(Request(_at(generation, 30).timestamp(), instance, "commit", f"{generation}.1", 200))
        if generation in (4, 6):
            found.append(Request(_at(generation, 40).timestamp(), instance, "commit", f"{generation}.2", 200))
    for zombie, save in ((5, 2), (6, 3)):
        at = _at(zombie + 1, 25).timestamp()
        found.append(Request(at, machine_id(zombie), "commit", f"{zombie}.{save}", 400, "TransactionCanceledException"))
    return sorted(found, key=lambda r: r.at_s)


def _run() -> Run:
    attempts = tuple(
        Attempt(
            g,
            AttemptState.ENDED,
            instance_id=machine_id(g),
            pool=Pool("us-east-1", "us-east-1a", TYPES.get(g, "g5.xlarge")),
            reserved_at=_at(g),
            launched_at=_at(g, 1),
            running_at=_at(g, 5),
            first_step_at=_at(g, 10),
            ended_at=_at(g, 55),
            ended_why="lost" if g < LAST else "finished",
            resumed_from=10 * (g - 1),
            last_step=10 * g,
        )
        for g in range(1, LAST + 1)
    )
    checkpoints = tuple(
        Checkpoint(Commit("demo", g, s, 10 * g, "m", "v", "x", 1), Verdict(g, s, (g, s) != (4, 2)))
        for g, s in ((7, 1), (6, 2), (6, 1), (5, 1), (4, 2), (4, 1), (3, 1), (2, 1), (1, 1))
    )
    reports = tuple(ExitReport("demo", g, EXIT_FENCED, "program") for g in (5, 6))
    return Run(
        "demo",
        Spec(("python",), ("g5.xlarge",)),
        START,
        status=RunStatus.SUCCEEDED,
        outcome=RunStatus.SUCCEEDED,
        attempts=attempts,
        checkpoints=checkpoints,
        reports=reports,
        ended_at=_at(LAST, 55),
    )


def _timeline() -> list[Entry]:
    lines = []
    for g in range(1, LAST + 1):
        for kind in ("reserved", "launch", "launched", "alive", "lease", "first-step"):
            lines.append(Entry(kind, f"{kind} of {g}", _at(g), g))
        if g > 1:
            source = "6.2" if g == 7 else f"{g - 1}.1"
            lines.append(Entry("resumed", "resumed", _at(g), g, {"checkpoint": source}))
        for save in (1, 2) if g == 6 else (1,):
            name = f"{g}.{save}"
            lines.append(Entry("committed", name, _at(g), g, {"checkpoint": name}))
            lines.append(Entry("verified", name, _at(g), g, {"checkpoint": name}))
        if g in (1, 3):
            lines.append(Entry("notice", "two minutes", _at(g), g))
        lines.append(Entry("ended", f"attempt {g} ended", _at(g), g))
    for kind in ("g5.2xlarge", "g6.xlarge"):
        lines.append(Entry("refused", "no capacity", _at(4), 4, {"pool": f"{kind}/us-east-1a/spot"}))
    lines.append(Entry("condemned", "a shard is gone", _at(5), 4, {"checkpoint": "4.2"}))
    lines.append(Entry("succeeded", "the program finished", _at(LAST), LAST))
    return lines
