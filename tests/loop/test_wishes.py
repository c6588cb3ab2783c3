"""What a person does to a run in the middle: pauses, resumes and retries it, and shares a budget with others."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.assembly import main as assemble
from spotrelay.console.demo.processes import living_in
from spotrelay.console.demo.reference import digest_in, losses_in
from spotrelay.core.budget import midnight_after
from spotrelay.core.run import RunStatus
from spotrelay.core.spending import NO_MONEY
from spotrelay.localcloud.client import LocalCloud
from spotrelay.localcloud.ec2 import catalogue
from tests.localcloud.kit import assembly_or_skip
from tests.loop.shell import QUIET, SCALE, Shell, left_alone

pytestmark = [pytest.mark.loop, pytest.mark.timeout(300), pytest.mark.xdist_group("wishes")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt_stdlib.py"
STEPS = 24
DEAR = "g5.48xlarge"  # beside it the other runs cost next to nothing
BLOCK = timedelta(hours=1) * SCALE
FAILING = """
import os, runpy, sys
if os.path.exists(os.environ["CAUSE"]):
    sys.exit("no space left on the disk of the data")
runpy.run_path("gpt_stdlib.py", run_name="__main__")
"""


def room_for_one() -> float:
    """Dollars that suffice for the first piece of one dear machine's time and not for that of two."""
    now = datetime.now(UTC).timestamp()
    price = max(catalogue.spot_price(DEAR, zone, now) for zone in catalogue.zones("us-east-1"))
    return round(1.6 * price * (BLOCK / timedelta(hours=1)), 4)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    assembly_or_skip()  # its bundles are in the cache then
    out = tmp_path_factory.mktemp("assembly") / "cdk.out"
    how = ["--out", str(out), "--arch", "host", "--python", "host"]
    assert assemble([*how, "-c", f"budget_dollars_per_day={room_for_one()}"]) == 0
    with LocalCloud(tmp_path_factory.mktemp("cloud"), SCALE) as cloud:
        cloud.deploy(out)
        yield cloud


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, float], str]:
    """Losses and digest of the same training, left alone and without Spotrelay."""
    said = left_alone(EXAMPLE, STEPS, tmp_path_factory.mktemp("expected"))
    return losses_in(said), digest_in(said)


@pytest.fixture
def shell(cloud: LocalCloud, tmp_path: Path) -> Shell:
    (tmp_path / "code").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "code")
    (tmp_path / "code" / "failing.py").write_text(FAILING)
    return Shell(cloud, tmp_path)


def submit(shell: Shell, run_id: str, script: str = EXAMPLE.name, **more: Any) -> None:
    spec = {
        "command": [sys.executable, script, "--steps", str(STEPS)],
        "instance_types": ["g5.xlarge"],
        "cadence": {"every_steps": 6},
        **more,
        "env": {**QUIET, **more.get("env", {})},
    }
    (shell.folder / f"{run_id}.yaml").write_text(yaml.safe_dump(spec))
    shell.done("submit", f"{run_id}.yaml", "--code", "code", "--run-id", run_id)


def books_of(shell: Shell) -> tuple[float, set[str]]:
    """Dollars that are spent or set aside today, and the runs that hold some at this moment."""
    books = json.loads(shell.done("budget", "--json"))
    return float(books["set_aside"]), {hold["run_id"] for hold in books["holds"]}


def gone(shell: Shell, about: dict[str, Any]) -> bool:
    machines = [machine for attempt in about["attempts"] for machine in attempt["machines"]]
    return {shell.machine_state(machine) for machine in machines} == {"terminated"}


def test_a_run_that_is_paused_in_the_middle_saves_rests_without_cost_and_goes_on_bit_for_bit(
    shell: Shell, expected: tuple[dict[int, float], str]
) -> None:
    submit(shell, "rests")
    shell.until("rests", lambda run: any(beat.step >= 2 for beat in run.heartbeats), "the first steps")

    told = shell.done("pause", "rests", "--reason", "lunch")
    paused = shell.until("rests", lambda run: run.status is RunStatus.PAUSED, "the pause")
    spent, holders = books_of(shell)

    assert "it rests" in told
    assert 0 < paused["step"] < STEPS
    assert gone(shell, paused)
    assert living_in(shell.cloud.home / "instances") == {}
    newest = max(paused["checkpoints"], key=lambda c: c["step"])
    assert (newest["step"], newest["state"]) == (paused["step"], "verified"), "what it had trained is saved"
    assert 0 < spent < 0.1 and holders == set()
    assert json.loads(shell.done("budget", "--json"))["ended"] == [{"run_id": "rests", "dollars": spent}]
    told_whole = [line for line in shell.done("events", "rests").splitlines() if "is whole in S3" in line]
    assert len(told_whole) == len({line.partition("checkpoint ")[2] for line in told_whole}) > 0
    shown = shell.done("status", "rests")
    assert "lunch" in shown and "spotrelay resume rests" in shown and "money: $0.0" in shown

    shell.done("resume", "rests")
    over = shell.ends("rests")

    assert [attempt["resumed_from"] for attempt in over["attempts"]] == [None, newest["step"]]
    said, (losses, digest) = shell.log("rests"), expected
    assert digest_in(said) == digest
    assert losses_in(said) == losses


def test_a_program_that_fails_too_often_is_told_with_its_log_and_a_retry_without_the_cause_finishes(
    shell: Shell, tmp_path: Path, expected: tuple[dict[int, float], str]
) -> None:
    cause = tmp_path / "cause"
    cause.touch()
    submit(shell, "fails", "failing.py", env={"CAUSE": str(cause)}, limits={"max_failures": 2})

    failed = shell.ends("fails", RunStatus.FAILED)
    told = shell.call("status", "fails")
    cause.unlink()
    shell.done("retry", "fails")
    over = shell.ends("fails")

    assert (len(failed["attempts"]), told.returncode) == (2, 1)
    assert "2 failures in a row" in told.stdout
    assert "no space left on the disk of the data" in told.stdout
    assert "spotrelay retry fails" in told.stdout
    assert gone(shell, failed)
    assert len(over["attempts"]) == 3
    assert digest_in(shell.log("fails")) == expected[1]


@pytest.mark.long
@pytest.mark.skipif(
    midnight_after(datetime.now(UTC)) - datetime.now(UTC) < timedelta(minutes=5), reason="the day's books end too soon"
)
def test_a_run_for_which_the_day_has_no_money_waits_says_so_and_starts_once_another_gives_some_back(
    shell: Shell,
) -> None:
    submit(shell, "first", instance_types=[DEAR], command=[sys.executable, EXAMPLE.name, "--steps", "100000"])
    shell.until("first", lambda run: bool(run.live), "the first run's machine")
    submit(shell, "second", instance_types=[DEAR], command=[sys.executable, EXAMPLE.name, "--steps", "3"])

    waiting = shell.until("second", lambda run: run.broke_until is not None, "the refusal")
    books = json.loads(shell.done("budget", "--json"))
    told, seen, shown = shell.done("events", "second"), shell.done("status", "second"), shell.done("budget")
    shell.done("cancel", "first")
    over = shell.ends("second")

    assert (waiting["status"], waiting["nodes_up"]) == ("waiting", 0)
    assert [machine for attempt in waiting["attempts"] for machine in attempt["machines"]] == []
    assert NO_MONEY in told
    assert f"next: {NO_MONEY}" in seen
    assert [(hold["run_id"], hold["machine"]) for hold in books["holds"]] == [("first", True)]
    assert [wish["run_id"] for wish in books["waiting"]] == ["second"]
    assert 0 < books["left"] < books["ceiling"] / 2
    assert "\nfirst\t1\t" in shown and shown.splitlines()[-1].startswith("second\t")
    assert sum(len(attempt["machines"]) for attempt in over["attempts"]) == 1
    assert books_of(shell)[0] < books["set_aside"], "what the first one did not use came back"
    ended = {run["run_id"]: run["dollars"] for run in json.loads(shell.done("budget", "--json"))["ended"]}
    assert ended["first"] > 0 and ended["second"] > 0
