"""The verdict fails for each thing that could be wrong, and says which; with nothing wrong it passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from spotrelay.console.demo.evidence import Evidence, Machine, Request, requests_of
from spotrelay.console.demo.verdict import judge, summary
from spotrelay.core.live import ExitReport
from spotrelay.core.run import RunStatus
from tests.loop.forged import LAST, evidence, machine_id

Forge = Callable[[Evidence], None]


def failed(found: Evidence) -> dict[str, tuple[str, ...]]:
    return {finding.rule: finding.problems for finding in judge(found) if not finding.ok}


def test_a_demo_in_which_all_went_well_passes() -> None:
    found = evidence()

    result = summary(found, judge(found), 100.0)

    assert failed(found) == {}
    assert (result["reclaims_survived"], result["reclaims"], result["digests_equal"]) == (5, 5, True)
    assert len(result["steps_lost"]) == len(result["rto_s"]) == 6


def late_commit(found: Evidence) -> None:
    found.requests.append(Request(found.requests[-1].at_s + 1, machine_id(5), "commit", "5.3", 200))


def another_s_commit(found: Evidence) -> None:
    found.requests.append(Request(found.requests[-1].at_s + 1, machine_id(3), "commit", "7.2", 200))


def committed_twice(found: Evidence) -> None:
    found.requests.append(Request(found.requests[-1].at_s + 1, machine_id(LAST), "commit", "7.1", 200))


def elder_after_the_heir_took_the_lease(found: Evidence) -> None:
    take = next(r for r in found.requests if r.what == "take" and r.instance_id == machine_id(2))
    at = found.requests.index(take)
    found.requests.insert(at + 1, Request(take.at_s + 1, machine_id(1), "commit", "1.2", 200))


def no_commit_at_all(found: Evidence) -> None:
    found.requests = [r for r in found.requests if r.what != "commit"]


@pytest.mark.parametrize(
    "forge",
    [late_commit, another_s_commit, committed_twice, elder_after_the_heir_took_the_lease, no_commit_at_all],
)
def test_two_writers_fail_the_verdict(forge: Forge) -> None:
    found = evidence()

    forge(found)

    assert "at no moment could two attempts commit" in failed(found)


@pytest.mark.parametrize("which", ["digest_printed", "digest_stored", "digest_reference"])
@pytest.mark.parametrize("value", ["e" * 64, ""])
def test_a_digest_that_differs_or_is_missing_fails_the_verdict(which: str, value: str) -> None:
    found = evidence()

    setattr(found, which, value)

    assert "final weights equal those of the uninterrupted run" in failed(found)
    assert not summary(found, judge(found), 1.0)["digests_equal"]


def test_no_digest_anywhere_is_not_equality() -> None:
    found = evidence()

    found.digest_printed = found.digest_stored = found.digest_reference = ""

    assert "final weights equal those of the uninterrupted run" in failed(found)


def test_a_single_differing_loss_fails_the_verdict() -> None:
    found = evidence()

    found.losses[3][25] += 1e-9

    assert failed(found)["every loss equals that of the uninterrupted run"] == (
        "attempt 3 had another loss than the uninterrupted run at step 25",
    )


def test_a_running_instance_or_a_living_process_fails_the_verdict() -> None:
    found = evidence()

    found.machines[2] = replace(found.machines[2], state="running")
    found.processes = ["4711 python"]

    assert len(failed(found)["nothing is left running"]) == 2


def test_a_second_machine_for_a_generation_fails_the_verdict() -> None:
    found = evidence()

    found.machines.append(Machine("i-00000000000000abc", 3, "terminated", "g5.xlarge", "us-east-1b"))

    problems = failed(found)["one launch for each reclaim"]
    assert any("attempt 3 has 2 machines" in problem for problem in problems)
    assert any("no record" in problem for problem in problems)


@pytest.mark.parametrize(
    "missing",
    [(entry.kind, entry.generation) for entry in evidence().timeline if entry.kind not in ("committed", "verified")
     and not (entry.generation == 1 and entry.kind not in ("notice", "ended"))
     and not (entry.generation == LAST and entry.kind == "ended")],
)  # fmt: skip
def test_each_missing_fact_fails_the_verdict(missing: tuple[str, int]) -> None:
    found = evidence()

    found.timeline = [entry for entry in found.timeline if (entry.kind, entry.generation) != missing]

    assert failed(found)


def test_a_decision_without_a_reason_fails_the_verdict() -> None:
    found = evidence()

    found.timeline = [replace(entry, text="") if entry.kind == "reserved" else entry for entry in found.timeline]

    assert "every fact is recorded" in failed(found)


def test_a_resume_from_a_checkpoint_that_was_not_verified_fails_the_verdict() -> None:
    found = evidence()

    found.timeline = [e for e in found.timeline if not (e.kind == "verified" and e.data["checkpoint"] == "2.1")]

    assert "resumed only from verified, whole checkpoints" in failed(found)


@pytest.mark.parametrize("name", ["damaged", "partial"])
def test_a_resume_from_a_harmed_checkpoint_fails_the_verdict(name: str) -> None:
    found = evidence()

    setattr(found.reclaims[0], name, "4.1")

    assert "resumed only from verified, whole checkpoints" in failed(found)


def test_a_zombie_that_is_not_refused_fails_the_verdict() -> None:
    found = evidence()

    found.requests = [r for r in found.requests if r.error != "TransactionCanceledException"]

    assert "zombies were refused, and found out" in failed(found)


def test_a_zombie_that_does_not_find_out_fails_the_verdict() -> None:
    found = evidence()

    found.run = replace(found.run, reports=(ExitReport("demo", 5, 0, "program"),))

    assert len(failed(found)["zombies were refused, and found out"]) == 2


def test_a_replacement_in_refused_capacity_fails_the_verdict() -> None:
    found = evidence()

    found.machines[3] = replace(found.machines[3], instance_type="g5.xlarge")

    assert "refused capacity led to other pools" in failed(found)


def test_a_capacity_error_that_never_came_as_5xx_fails_the_verdict() -> None:
    found = evidence()

    found.requests = [r for r in found.requests if r.what != "launch"]

    assert "refused capacity led to other pools" in failed(found)


def test_a_run_that_failed_fails_the_verdict() -> None:
    found = evidence()

    found.run = replace(found.run, status=RunStatus.FAILED)

    assert "the run succeeded" in failed(found)


def test_the_request_log_is_read_by_table_key_and_sender() -> None:
    common = {"at": 1.0, "status": 200, "error": "", "instance_id": "i-1", "service": "dynamodb"}
    commit = {
        **common,
        "mono": 2.0,
        "action": "TransactWriteItems",
        "target": "Update T LIVE#demo LEASE, Put T LIVE#demo COMMIT#000002#000003",
    }
    take = {**common, "mono": 1.0, "action": "UpdateItem", "target": "T LIVE#demo LEASE"}
    other_run = {**take, "target": "T LIVE#demo2 LEASE"}
    fence = {**take, "instance_id": None}
    launch = {**common, "mono": 3.0, "service": "ec2", "action": "CreateFleet", "target": "", "status": 500}

    found = requests_of([commit, take, other_run, fence, launch], "demo")

    assert [(r.what, r.checkpoint, r.status) for r in found] == [
        ("take", "", 200),
        ("commit", "2.3", 200),
        ("launch", "", 500),
    ]
