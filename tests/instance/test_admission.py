from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spotrelay.core.lease import Lease
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.instance.admission import why_not
from tests.instance.attempts import INSTANCE, RUN, a_run, a_spec, an_identity

ME = an_identity(Path("/nowhere"))


def test_the_machine_of_the_attempt_may_start() -> None:
    assert why_not(a_run(a_spec(), lease=Lease(RUN)), ME) is None


def test_a_machine_that_the_row_does_not_name_yet_may_start() -> None:
    assert why_not(a_run(a_spec(), instance_id=None, lease=Lease(RUN)), ME) is None


def test_a_machine_of_the_next_attempt_may_start_while_the_older_one_holds_the_lease() -> None:
    older = Attempt(1, AttemptState.DRAINING, "i-0aaaaaaaaaaaaaaaa")
    run = a_run(a_spec(), attempts=(older, Attempt(2, AttemptState.BOOTING, INSTANCE)))

    lease = Lease(RUN, 1, "i-0aaaaaaaaaaaaaaaa")
    assert why_not(replace(run, lease=lease), replace(ME, generation=2)) is None


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (a_run(a_spec(), attempts=()), "no attempt 1"),
        (a_run(a_spec(), instance_id="i-0bbbbbbbbbbbbbbbb"), "i-0bbbbbbbbbbbbbbbb"),
        (a_run(a_spec(), outcome=RunStatus.CANCELLED), "cancelled"),
        (a_run(a_spec(), status=RunStatus.SUCCEEDED), "succeeded"),
        (a_run(a_spec(), attempts=(Attempt(1, AttemptState.ENDED, INSTANCE, ended_why="lost"),)), "lost"),
        (a_run(a_spec(), lease=Lease(RUN, 0, None, floor=2)), "replaced by 2"),
        (a_run(a_spec(), lease=Lease(RUN, 3, "i-0bbbbbbbbbbbbbbbb")), "replaced by 3"),
    ],
)
def test_every_other_machine_is_told_why_it_may_not(run: Run, word: str) -> None:
    assert word in (why_not(run, ME) or "")
