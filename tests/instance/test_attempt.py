"""The whole way of one machine: user data, agent from its archive, program, report, against real services."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import spotrelay
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.live import EXIT_DRAINED, Phase
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec
from tests.instance.attempts import a_run, a_spec, packed
from tests.instance.cloud import AGENTS, BUCKET, BUS, TABLE, Cloud
from tests.instance.machine import Machine, eventually, rendered, write_archive
from tests.instance.metadata_server import SECRET_KEY, SESSION_TOKEN, FakeMetadata

MAIN = "import runpy; runpy.run_module('spotrelay.instance', run_name='__main__', alter_sys=True)\n"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Our own packages as one file; boto3 is the test environment's."""
    return write_archive(tmp_path_factory.mktemp("archive") / "agent.pyz", MAIN, (Path(spotrelay.__file__).parent,))


class Attempt:
    """A submitted run and the machine of its first attempt."""

    def __init__(self, cloud: Cloud, run_id: str, machine: Machine, user_data: str) -> None:
        self.cloud = cloud
        self.run_id = run_id
        self.machine = machine
        self._user_data = user_data

    def boot(self) -> None:
        self.machine.boot(self._user_data)

    def row(self) -> Run:
        return DynamoLiveStore(self.cloud.client("dynamodb"), TABLE).read_run(self.run_id)

    def log(self) -> str:
        return self.cloud.log(self.run_id)

    def explained(self) -> str:
        return self.machine.console() + self.log()


@pytest.fixture
def submit(
    cloud: Cloud,
    metadata: FakeMetadata,
    values: dict[str, str],
    new_machine: Callable[..., Machine],
    archive: bytes,
) -> Callable[..., Attempt]:
    """Submits a run of this spec and prepares its machine."""

    def make(spec: Spec, **machine: Any) -> Attempt:
        run_id = f"run-{uuid.uuid4().hex[:12]}"
        DynamoRunStore(cloud.client("dynamodb"), TABLE).create(a_run(spec, run_id))
        metadata.paths["tags/instance/spotrelay:run"] = run_id
        values["AGENT_SHA256"] = hashlib.sha256(archive).hexdigest()
        values["AGENT_KEY"] = "agents/ours.pyz"
        cloud.client("s3").put_object(Bucket=AGENTS, Key=values["AGENT_KEY"], Body=archive)
        return Attempt(cloud, run_id, new_machine(cloud.endpoint, **machine), rendered(values))

    return make


def with_code(cloud: Cloud, spec: Spec, files: dict[str, str]) -> Spec:
    body, digest = packed(files)
    key = f"code/{digest}.tar.gz"
    cloud.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    return replace(spec, code_key=key, code_digest=digest)


def listen(cloud: Cloud, run_id: str) -> Callable[[], list[dict[str, Any]]]:
    """Everything that our own source tells about this run from now on."""
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName=run_id)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["spotrelay"], "detail": {"run_id": [run_id]}})
    events.put_rule(Name=run_id, EventBusName=BUS, EventPattern=pattern)
    events.put_targets(Rule=run_id, EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])
    heard: list[dict[str, Any]] = []

    def hear() -> list[dict[str, Any]]:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            heard.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return heard

    return hear


def test_a_machine_boots_runs_the_pinned_code_and_tells_how_it_ended(
    cloud: Cloud, submit: Callable[..., Attempt]
) -> None:
    cloud.client("ssm").put_parameter(Name="/team/key", Value="it's $(secret)", Type="SecureString", Overwrite=True)
    train = (
        "import json, os, sys\n"
        "print('training', json.dumps(sys.argv[1:]))\n"
        "print('environment', json.dumps({k: os.environ[k] for k in ('LR', 'SPOTRELAY_GENERATION')}))\n"
        "print('secret is right:', os.environ['KEY'] == \"it's $(secret)\")\n"
    )
    wild = ["$(touch pwned)", "it's", 'a "quote"', "two\nlines", "`touch pwned`", "ü"]
    spec = a_spec(sys.executable, "train.py", *wild, env={"LR": "$(touch pwned)"}, secrets={"KEY": "ssm:/team/key"})
    attempt = submit(with_code(cloud, spec, {"train.py": train}))
    hear = listen(cloud, attempt.run_id)

    attempt.boot()

    assert attempt.machine.wait() == 0, attempt.explained()
    log = attempt.log()
    assert f"training {json.dumps(wild)}" in log
    assert f"environment {json.dumps({'LR': '$(touch pwned)', 'SPOTRELAY_GENERATION': '1'})}" in log
    assert "secret is right: True" in log
    (report,) = attempt.row().reports
    assert (report.code, report.stage) == (0, "program")
    assert "secret is right" in report.tail
    (beat,) = attempt.row().heartbeats
    assert beat.phase is Phase.SETUP and beat.counter >= 1
    assert attempt.machine.halts() == ["-h now"]
    assert not list(attempt.machine.folder.rglob("pwned"))
    for text in (log, report.tail, attempt.machine.console()):
        assert "it's $(secret)" not in text and SECRET_KEY not in text and SESSION_TOKEN not in text
    eventually(lambda: len(hear()) >= 2, "both events had arrived")
    assert {event["detail"]["what"] for event in hear()} == {"boot", "exited"}


def test_a_program_that_crashes_is_told_with_the_end_of_its_log(submit: Callable[..., Attempt]) -> None:
    attempt = submit(a_spec(sys.executable, "-c", "raise RuntimeError('loss is on fire')"))

    attempt.boot()

    assert attempt.machine.wait() == 0, attempt.explained()
    (report,) = attempt.row().reports
    assert (report.code, report.stage) == (1, "program")
    assert "RuntimeError: loss is on fire" in report.tail
    assert attempt.machine.halts() == ["-h now"]


def test_a_drained_machine_idles_until_ec2_takes_it(
    submit: Callable[..., Attempt], values: dict[str, str], metadata: FakeMetadata
) -> None:
    metadata.announce_reclaim()
    values["TIME_SCALE"] = "0.05"
    attempt = submit(a_spec("sh", "-c", f"echo drained; exit {EXIT_DRAINED}"))

    attempt.boot()

    eventually(lambda: "waiting for EC2" in attempt.log(), "the machine idled")
    (report,) = attempt.row().reports
    assert report.code == EXIT_DRAINED
    assert attempt.machine.process.poll() is None
    assert attempt.machine.halts() == []
    attempt.machine.kill()


def test_code_with_another_digest_never_runs(cloud: Cloud, submit: Callable[..., Attempt]) -> None:
    spec = with_code(cloud, a_spec(sys.executable, "train.py"), {"train.py": "open('ran', 'w')"})
    attempt = submit(replace(spec, code_digest="0" * 64))

    attempt.boot()

    assert attempt.machine.wait() == 0, attempt.explained()
    (report,) = attempt.row().reports
    assert report.stage == "boot" and "SHA-256" in report.tail
    assert not list(attempt.machine.folder.rglob("ran"))
    assert attempt.machine.halts() == ["-h now"]


def test_a_table_that_is_not_there_is_told_in_the_log_and_ends_the_machine(
    submit: Callable[..., Attempt], values: dict[str, str]
) -> None:
    values["TABLE"] = "no-such-table"
    attempt = submit(a_spec("true"))

    attempt.boot()

    assert attempt.machine.wait() == 0, attempt.explained()
    assert "no-such-table is not there" in attempt.log()
    assert attempt.machine.halts() == ["-h now"]


def test_a_bootstrap_failure_is_a_report_that_the_control_plane_reads(
    submit: Callable[..., Attempt], cloud: Cloud, values: dict[str, str]
) -> None:
    attempt = submit(a_spec("true"))
    cloud.client("s3").put_object(Bucket=AGENTS, Key=values["AGENT_KEY"], Body=b"something else")

    attempt.boot()

    assert attempt.machine.wait() != 0
    (report,) = attempt.row().reports
    assert report.stage == "boot" and report.code != 0
    assert "SHA-256" in report.tail
    assert "bootstrap failed" in attempt.log()


def test_the_log_can_be_read_while_the_program_runs(submit: Callable[..., Attempt], tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    wait = (
        "import pathlib, sys, time\nprint('first line')\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
    )
    attempt = submit(a_spec(sys.executable, "-c", wait, str(go_on)))

    attempt.boot()

    eventually(lambda: "first line" in attempt.log(), "the log had arrived")
    assert attempt.machine.process.poll() is None
    go_on.touch()
    assert attempt.machine.wait() == 0, attempt.explained()


def test_a_machine_that_is_shut_down_hands_the_request_to_its_program(
    submit: Callable[..., Attempt], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    drain = (
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('draining'), sys.exit(75)))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "signal.pause()\n"
    )
    attempt = submit(a_spec(sys.executable, "-c", drain, str(ready)))
    attempt.boot()
    eventually(ready.exists, "the program ran")

    os.kill(attempt.machine.process.pid, signal.SIGTERM)

    attempt.machine.wait()
    (report,) = attempt.row().reports
    assert report.code == EXIT_DRAINED
    assert "draining" in attempt.log()


def test_credentials_that_an_image_left_behind_are_not_used(
    submit: Callable[..., Attempt], metadata: FakeMetadata
) -> None:
    leftover = {"AWS_ACCESS_KEY_ID": "LEFTOVER", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    attempt = submit(a_spec("sh", "-c", 'echo "key: ${AWS_ACCESS_KEY_ID:-none}"'), leftover=leftover)

    attempt.boot()

    assert attempt.machine.wait() == 0, attempt.explained()
    assert "key: none" in attempt.log()
    credentials = [asked for asked in metadata.asked if asked.endswith("iam/security-credentials/spotrelay-machine")]
    assert len(credentials) >= 2, "the script and the agent have asked for the role's"
