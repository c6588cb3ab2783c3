"""Attempts that fail in a row: when that counts, what is told, and which machine stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from spotrelay.core.breaker import died_young, is_kept, kept_until, protected
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.core.spec import Spec
from spotrelay.testing.clock import START

SPEC = Spec(("train",), ("g5.xlarge",), keep_failed_minutes=30)
MINUTE = timedelta(minutes=1)
LOST = Attempt(2, AttemptState.ENDED, "i-2", launched_at=START)
CRASHED = replace(LOST, crashed=True, ended_at=START)


def a_run(*attempts: Attempt, **rest: object) -> Run:
    return replace(Run("r1", SPEC, START, attempts=attempts), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("elder", "attempt", "counts"),
    [
        (None, LOST, True),  # it never sent a heartbeat
        (None, replace(LOST, beating_at=START), False),  # once is bad luck
        (replace(LOST, generation=1, beating_at=START), replace(LOST, beating_at=START), True),
        (replace(LOST, generation=1, first_step_at=START), replace(LOST, beating_at=START), False),
        (replace(LOST, generation=1, noticed_at=START), replace(LOST, beating_at=START), False),
        (None, replace(LOST, noticed_at=START), False),  # EC2 took it
        (None, replace(LOST, beating_at=START, first_step_at=START), False),
    ],
)
def test_the_loss_of_a_machine_counts_when_it_never_came_to_a_step(
    elder: Attempt | None, attempt: Attempt, counts: bool
) -> None:
    run = a_run(*([elder] if elder else []), attempt)

    assert died_young(run, attempt) is counts


def test_the_message_has_the_end_of_the_log_and_the_remedy() -> None:
    run = a_run(CRASHED, failures=3)

    told = protected(run, "its boot exited with status 1", "\n".join(f"line {n}" for n in range(40)))

    assert "3 failures in a row" in told and "attempt 2: its boot exited with status 1" in told
    assert "line 39" in told and "line 28" in told and "line 27" not in told
    assert told.endswith("spotrelay retry r1")


def test_a_log_without_end_does_not_fill_the_row() -> None:
    assert len(protected(a_run(CRASHED), "it broke", "x" * 100_000)) < 2000


def test_without_a_log_the_message_says_where_else_to_look() -> None:
    assert "get-console-output --latest --instance-id i-2" in protected(a_run(LOST), "no heartbeat", "")


def test_the_newest_failed_machine_stays_and_no_other() -> None:
    elder = replace(CRASHED, generation=1, instance_id="i-1")
    run = a_run(elder, CRASHED)

    assert kept_until(run, CRASHED) == START + 30 * MINUTE
    assert is_kept(run, CRASHED, START + 29 * MINUTE) and not is_kept(run, CRASHED, START + 30 * MINUTE)
    assert kept_until(run, elder) is None


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"outcome": RunStatus.FAILED}, True),
        ({"outcome": RunStatus.CANCELLED}, False),
        ({"outcome": RunStatus.SUCCEEDED}, False),
        ({"paused_at": START}, False),
        ({"spec": replace(SPEC, keep_failed_minutes=0)}, False),
    ],
)
def test_a_failed_machine_stays_for_a_run_that_may_go_on(change: dict[str, object], stays: bool) -> None:
    assert (kept_until(a_run(CRASHED, **change), CRASHED) is not None) is stays
