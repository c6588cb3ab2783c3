"""Each command as a shell sees it: answer, exit code, and what it did to the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from spotrelay.console import cancel as cancelling
from spotrelay.console import submit as submitting
from spotrelay.console import wiring
from spotrelay.core.errors import LostRace, OutcomeUnknown, Unavailable
from spotrelay.core.requirements import InstanceKind
from spotrelay.core.run import Attempt, AttemptState, Run, RunStatus
from spotrelay.testing import MemoryStore
from tests.console.conftest import Plane, Said

Call = Callable[..., Said]


def submitted(plane: Plane, spotrelay: Call, spec: Path, run_id: str = "r1") -> None:
    assert spotrelay("submit", spec, "--run-id", run_id).code == 0


def booting(plane: Plane, run_id: str) -> None:
    before = plane.store.load(run_id)
    machine = Attempt(1, AttemptState.BOOTING, instance_id="i-0123456789abcdef0")
    plane.store.save(before, replace(before, status=RunStatus.STARTING, attempts=(machine,)))


def finished(plane: Plane, run_id: str, status: RunStatus, why: str) -> None:
    before = plane.store.load(run_id)
    over = replace(before, status=status, outcome=status, outcome_why=why, ended_at=plane.clock.now(), due_at=None)
    plane.store.save(before, over)


def test_a_submitted_run_is_due_at_once_and_the_control_plane_is_told(
    plane: Plane, spotrelay: Call, spec: Path
) -> None:
    said = spotrelay("submit", spec, "--run-id", "r1", "--json")

    assert said.code == 0
    assert json.loads(said.out) == {"run_id": "r1", "status": "waiting", "code_key": "", "files": 0}
    assert plane.store.due(plane.clock.now()) == ["r1"]
    assert plane.publisher.of("Run Submitted") == [{"run_id": "r1"}]
    assert plane.store.load("r1").spec.failover


def test_code_is_uploaded_under_its_digest_and_pinned_in_the_run(
    plane: Plane, spotrelay: Call, spec: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text("print('hello')")

    spotrelay("submit", spec, "--code", code, "--run-id", "r1")
    again = spotrelay("submit", spec, "--code", code, "--run-id", "r2")

    pinned = plane.store.load("r1").spec
    assert again.code == 0
    assert pinned.code_key == f"code/{pinned.code_digest}.tar.gz"
    assert plane.objects.head(pinned.code_key).size > 0
    assert plane.store.load("r2").spec.code_digest == pinned.code_digest


def test_one_flag_turns_failover_off(plane: Plane, spotrelay: Call, spec: Path) -> None:
    spotrelay("submit", spec, "--run-id", "r1", "--no-failover")

    assert not plane.store.load("r1").spec.failover


def test_an_id_is_made_from_the_name_of_the_file(plane: Plane, spotrelay: Call, spec: Path) -> None:
    said = spotrelay("submit", spec, "--json")

    assert json.loads(said.out)["run_id"].startswith("small-run-")


def test_an_id_that_is_taken_is_refused(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)

    said = spotrelay("submit", spec, "--run-id", "r1")

    assert said.code == 5
    assert "already" in said.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("command: [python\ninstance_types: [g5.xlarge]", ("line 2",)),
        ("just words", ("mapping",)),
        ("# nothing yet", ("the file is empty",)),
        ("command: [x]\ninstance_types: [y.z]\nenv: {LR: 0.1}\nlimits: {max_dollars: 1e3}", ("quote it", "1.0e+3")),
        ("command: []\ninstance_types: [nonsense]\nlimits: {max_launches: 0}", ("command", "nonsense", "max_launches")),
        ("comand: [x]\ninstance_typs: [y]", ("comand", "instance_typs")),
        ("command: run.sh\ninstance_types: 7\nfailover: maybe", ("spec.command", "spec.instance_types", "failover")),
    ],
)
def test_a_bad_spec_is_told_with_every_mistake_and_nothing_is_sent(
    plane: Plane, spotrelay: Call, tmp_path: Path, text: str, named: tuple[str, ...]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)

    said = spotrelay("submit", path)

    assert said.code == 2
    assert "bad.yaml" in said.err
    assert all(word in said.err for word in named), said.err
    assert "Traceback" not in said.err
    assert list(plane.store.all_runs()) == []


def test_a_spec_that_is_not_there_is_told_without_a_traceback(plane: Plane, spotrelay: Call, tmp_path: Path) -> None:
    said = spotrelay("submit", tmp_path / "nothing.yaml")

    assert said.code == 2
    assert "no such file" in said.err


def test_zones_outside_the_stack_are_refused_before_anything_is_sent(
    plane: Plane, spotrelay: Call, tmp_path: Path
) -> None:
    path = tmp_path / "far.yaml"
    path.write_text("command: [x]\ninstance_types: [g5.xlarge]\nzones: [eu-west-1a]")

    said = spotrelay("submit", path)

    assert said.code == 2
    assert "us-east-1a" in said.err


def test_a_lost_reply_to_the_creation_is_read_back(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MemoryStore.create

    def losing(self: MemoryStore, run: Run) -> None:
        create(self, run)
        raise OutcomeUnknown("no clear answer")

    monkeypatch.setattr(MemoryStore, "create", losing)

    assert spotrelay("submit", spec, "--run-id", "r1").code == 0


def test_a_bus_that_is_down_does_not_fail_the_submission(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(kind: str, detail: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(plane.publisher, "publish", down)

    said = spotrelay("submit", spec, "--run-id", "r1")

    assert said.code == 0
    assert "sweep" in said.err


def test_status_lists_the_newest_run_first(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec, "old")
    plane.clock.advance(timedelta(minutes=5))
    submitted(plane, spotrelay, spec, "new")

    said = spotrelay("status", "--json")

    assert [run["run_id"] for run in json.loads(said.out)] == ["new", "old"]


def test_status_of_a_run_shows_attempts_checkpoints_and_books(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)

    about = json.loads(spotrelay("status", "r1", "--json").out)
    text = spotrelay("status", "r1").out

    assert about["status"] == "waiting"
    assert {"attempts", "checkpoints", "recoveries", "goodput", "badput_s"} <= set(about)
    assert "run r1: waiting" in text


def test_status_of_a_failed_run_is_exit_code_1(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    finished(plane, "r1", RunStatus.FAILED, "the program failed three times")

    said = spotrelay("status", "r1")

    assert said.code == 1
    assert "three times" in said.out


@pytest.mark.parametrize("command", ["status", "events", "logs", "cancel"])
def test_an_unknown_run_is_exit_code_3(plane: Plane, spotrelay: Call, command: str) -> None:
    said = spotrelay(command, "nobody")
    told = json.loads(spotrelay(command, "nobody", "--json").out)

    assert said.code == 3
    assert "nobody" in said.err
    assert told["error"] == "UnknownRun"


def test_the_timeline_is_told_with_reasons_until_the_run_ends(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    cancelling.cancel(plane.services, "r1", "too dear")

    said = spotrelay("events", "r1", "--follow")

    assert said.code == 1
    assert "submitted" in said.out
    assert "too dear" in said.out


def test_logs_come_in_order_and_can_be_narrowed_to_an_attempt(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    for generation, sequence, text in ((2, 1, "third\n"), (1, 2, "second\n"), (1, 1, "first\n")):
        plane.objects.put(f"runs/r1/logs/{generation:06d}/{sequence:06d}.log", text.encode())

    everything = spotrelay("logs", "r1")
    narrowed = spotrelay("logs", "r1", "--attempt", "2", "--json")

    assert everything.out == "first\nsecond\nthird\n"
    assert json.loads(narrowed.out) == {"attempt": 2, "sequence": 1, "text": "third\n", "node": 0}


def test_a_cancellation_is_on_the_run_before_anybody_is_told(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    booting(plane, "r1")

    said = spotrelay("cancel", "r1", "--reason", "wrong data")
    again = spotrelay("cancel", "r1", "--json")

    run = plane.store.load("r1")
    assert said.code == 0
    assert (run.cancel_why, run.status) == ("wrong data", RunStatus.STOPPING)
    assert plane.store.due(plane.clock.now()) == ["r1"]
    assert plane.publisher.of("Run Cancel Requested")[0] == {"run_id": "r1", "reason": "wrong data"}
    assert json.loads(again.out)["news"] is False


def test_a_run_without_a_machine_is_cancelled_at_once(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)

    said = spotrelay("cancel", "r1")

    assert said.code == 0
    assert plane.store.load("r1").status is RunStatus.CANCELLED
    assert plane.store.due(plane.clock.now()) == []


def test_a_cancellation_that_loses_a_race_reads_again(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(plane, spotrelay, spec)
    save, refusals = MemoryStore.save, [LostRace("somebody was faster")]

    def racing(self: MemoryStore, before: Run, after: Run) -> Run:
        if refusals:
            raise refusals.pop()
        return save(self, before, after)

    monkeypatch.setattr(MemoryStore, "save", racing)

    assert spotrelay("cancel", "r1").code == 0
    assert plane.store.load("r1").cancel_why is not None


def test_a_run_that_has_ended_is_not_cancelled(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    finished(plane, "r1", RunStatus.SUCCEEDED, "the program finished")

    said = spotrelay("cancel", "r1")

    assert said.code == 5
    assert "ended already" in said.err
    assert plane.store.load("r1").cancel_why is None


def test_a_spec_that_pins_code_refuses_another_directory(plane: Plane, spotrelay: Call, tmp_path: Path) -> None:
    path = tmp_path / "pinned.yaml"
    path.write_text("command: [x]\ninstance_types: [g5.xlarge]\ncode_key: code/x.tar.gz")

    said = spotrelay("submit", path, "--code", tmp_path)

    assert said.code == 2
    assert "code_key" in said.err


def test_an_upload_that_an_outside_hand_has_changed_is_refused(plane: Plane, tmp_path: Path, spec: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(1)")
    submission = submitting.prepare(spec, tmp_path / "code", "r1", failover=True)
    assert submission.bundle is not None
    plane.objects.put(submission.bundle.key, b"something else")

    with pytest.raises(Exception, match="outside hand"):
        submitting.send(submission, plane.services)


def test_a_run_is_paused_and_resumed_on_its_row_and_the_hint_brings_no_fact(
    plane: Plane, spotrelay: Call, spec: Path
) -> None:
    submitted(plane, spotrelay, spec)

    paused = spotrelay("pause", "r1", "--reason", "the weekend")
    again = spotrelay("pause", "r1", "--json")
    status = spotrelay("status", "r1")
    resumed = spotrelay("resume", "r1")

    assert (paused.code, resumed.code) == (0, 0)
    assert "resume r1" in paused.out
    assert json.loads(again.out) == {"run_id": "r1", "status": "paused", "news": False}
    assert "r1: paused (the weekend)" in status.out
    assert plane.store.load("r1").status is RunStatus.WAITING
    assert plane.publisher.of("Run Due") == [{"run_id": "r1"}, {"run_id": "r1"}], "a late one must not pause again"


def test_a_failed_run_is_retried(plane: Plane, spotrelay: Call, spec: Path) -> None:
    submitted(plane, spotrelay, spec)
    finished(plane, "r1", RunStatus.FAILED, "the program failed three times")

    said = spotrelay("retry", "r1", "--json")

    assert json.loads(said.out) == {"run_id": "r1", "status": "waiting", "news": True}
    assert plane.store.due(plane.clock.now()) == ["r1"]


@pytest.mark.parametrize(
    ("command", "outcome", "named"),
    [
        ("retry", RunStatus.SUCCEEDED, "nothing left to do"),
        ("retry", None, "is not over"),
        ("pause", RunStatus.FAILED, "nothing to pause"),
        ("resume", RunStatus.FAILED, "spotrelay retry"),
    ],
)
def test_what_a_run_does_not_allow_is_refused_and_nothing_is_changed(
    plane: Plane, spotrelay: Call, spec: Path, command: str, outcome: RunStatus | None, named: str
) -> None:
    submitted(plane, spotrelay, spec)
    if outcome is not None:
        finished(plane, "r1", outcome, "as it is")
    before = plane.store.load("r1")

    said = spotrelay(command, "r1")

    assert said.code == 5
    assert named in said.err
    assert plane.store.load("r1") == before


def test_a_retry_whose_reply_is_lost_is_read_back(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(plane, spotrelay, spec)
    finished(plane, "r1", RunStatus.FAILED, "the program failed three times")
    save = MemoryStore.save

    def losing(self: MemoryStore, before: Run, after: Run) -> Run:
        save(self, before, after)
        raise OutcomeUnknown("the reply was lost")

    monkeypatch.setattr(MemoryStore, "save", losing)

    said = spotrelay("retry", "r1")

    assert said.code == 0, said.err
    assert [e.kind for e in plane.store.timeline("r1")].count("retry") == 1


def test_a_run_that_may_not_fail_over_is_submitted_so(plane: Plane, spotrelay: Call, spec: Path) -> None:
    spotrelay("submit", spec, "--run-id", "once", "--no-failover")
    spotrelay("submit", spec, "--run-id", "often")

    assert plane.store.load("once").spec.failover is False
    assert plane.store.load("often").spec.failover is True


def test_requirements_are_resolved_when_a_run_is_submitted_and_recorded_in_it(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (InstanceKind("g5.xlarge", 4, 16, gpus=1, gpu_memory_gib=24), InstanceKind("m5.xlarge", 4, 16))
    services = replace(plane.services, kinds_in=lambda region: kinds)
    monkeypatch.setattr(wiring, "connect", lambda where: services)
    spec.write_text("command: [python, train.py]\ninstance_requirements: {gpus: 1, gpu_memory_gib: 24}\n")

    said = spotrelay("submit", spec, "--run-id", "r1")

    run = plane.store.load("r1")
    assert said.code == 0, said.err
    assert run.spec.instance_types == ("g5.xlarge",)
    assert set(run.spec.offered) == {region for region, _ in services.zones}
    assert "g5.xlarge" in plane.store.timeline("r1")[0].text


def test_requirements_that_nothing_fits_submit_nothing_and_name_what_comes_nearest(
    plane: Plane, spotrelay: Call, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = replace(plane.services, kinds_in=lambda region: (InstanceKind("g4dn.xlarge", 4, 16, gpus=1),))
    monkeypatch.setattr(wiring, "connect", lambda where: services)
    spec.write_text("command: [python, train.py]\ninstance_requirements: {gpus: 2}\n")

    said = spotrelay("submit", spec, "--run-id", "r1")

    assert said.code != 0
    assert "Nearest: g4dn.xlarge" in said.err and "has 1 GPUs" in said.err
    assert not list(plane.store.all_runs())
