"""The resume script, run by bash against loopback servers."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.instance.cloud import AGENTS, BUCKET, TABLE, Cloud
from tests.instance.machine import PLACEHOLDER, RESUME, Machine, eventually, rendered, write_archive, write_program
from tests.instance.metadata_server import SECRET_KEY, SESSION_TOKEN, FakeMetadata

NewMachine = Callable[..., Machine]
TELL = "import json, os, pathlib; pathlib.Path({place!r}).write_text(json.dumps(dict(os.environ)))\n"


@pytest.fixture
def agent(cloud: Cloud, values: dict[str, str], tmp_path: Path) -> Callable[[str], Path]:
    """Uploads an agent with this `__main__`; the path that `{place}` in it stands for."""

    def upload(main: str) -> Path:
        place = tmp_path / "told"
        body = write_archive(tmp_path / "agent.zip", main.replace("{place!r}", repr(str(place))))
        values["AGENT_SHA256"] = hashlib.sha256(body).hexdigest()
        values["AGENT_KEY"] = f"agents/{values['AGENT_SHA256']}.zip"
        cloud.client("s3").put_object(Bucket=AGENTS, Key=values["AGENT_KEY"], Body=body)
        return place

    return upload


def named(metadata: FakeMetadata, run_id: str) -> str:
    metadata.paths["tags/instance/spotrelay:run"] = run_id
    return run_id


def boot_report(cloud: Cloud, run_id: str, generation: int = 1) -> dict[str, Any]:
    item = cloud.item(f"LIVE#{run_id}", f"REPORT#{generation:06d}")
    assert item is not None, "no exit report in the table"
    body: dict[str, Any] = json.loads(item["body"]["S"])
    return body


def test_it_learns_who_it_is_and_runs_the_agent(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    metadata.paths["tags/instance/spotrelay:generation"] = "0008"
    place = agent(TELL)
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 0, machine.console()
    told = json.loads(place.read_text())
    expected = {
        "SPOTRELAY_RUN": "run-1",
        "SPOTRELAY_GENERATION": "8",
        "SPOTRELAY_LAUNCH": "1",
        "SPOTRELAY_INSTANCE": "i-0123456789abcdef0",
        "SPOTRELAY_TABLE": TABLE,
        "SPOTRELAY_BUCKET": BUCKET,
        "SPOTRELAY_BUS": values["BUS"],
        "SPOTRELAY_STACK": "Spotrelay",
        "SPOTRELAY_HOME_REGION": "us-east-1",
        "SPOTRELAY_TIME_SCALE": "0.01",
        "SPOTRELAY_WORK": str(machine.work()),
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.address,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert machine.halts() == [], "an agent that ends with 0 has done its own ending"


@pytest.mark.parametrize("answers", [[503, 503, 200], [0, 500, 429], [401]], ids=["503", "dropped", "token refused"])
def test_a_metadata_service_that_is_late_is_asked_again(
    answers: list[int],
    cloud: Cloud,
    metadata: FakeMetadata,
    values: dict[str, str],
    agent: Callable[[str], Path],
    new_machine: NewMachine,
) -> None:
    metadata.first_answers = [status for status in answers if status != 200]
    place = agent(TELL)
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 0, machine.console()
    assert place.exists()


def test_a_metadata_service_that_is_off_ends_the_machine(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    metadata.first_answers = [403] * 100
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() != 0
    assert machine.halts() == ["-h now"]
    assert "HTTP 403" in machine.console()


@pytest.mark.parametrize(
    "tag",
    ["$(touch pwned)", "`touch pwned`", "a'; touch pwned; '", 'a"; touch pwned; "', "a\ntouch pwned", "a b", "", "-rf"],
)
def test_no_text_in_a_tag_is_ever_executed(
    tag: str, cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    named(metadata, tag)
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 65, machine.console()
    assert not list(machine.folder.rglob("pwned"))
    assert machine.halts() == ["-h now"]


def test_static_values_arrive_exactly_as_they_are(
    cloud: Cloud, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    place = agent(TELL)
    wild = 'it\'s $(touch pwned) `touch pwned` "quoted" \\ and\non a second line; touch pwned #'
    values["BUS"] = wild
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 0, machine.console()
    assert json.loads(place.read_text())["SPOTRELAY_BUS"] == wild
    assert not list(machine.folder.rglob("pwned"))


def test_an_agent_with_another_digest_is_not_run_and_the_failure_is_reported(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "other-digest")
    place = agent(TELL)
    values["AGENT_SHA256"] = "0" * 64
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() != 0
    assert not place.exists()
    assert machine.halts() == ["-h now"]
    log = cloud.log(run_id)
    assert "SHA-256" in log and "bootstrap failed" in log
    report = boot_report(cloud, run_id)
    assert report["stage"] == "boot" and report["code"] != 0
    assert "SHA-256" in report["tail"]


def test_a_missing_agent_is_reported(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "no-agent")
    values["AGENT_KEY"] = "agents/none.zip"
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() != 0
    assert "NoSuchKey" in boot_report(cloud, run_id)["tail"]
    assert machine.halts() == ["-h now"]


def test_a_machine_without_a_new_enough_python_says_so(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine, tmp_path: Path
) -> None:
    run_id = named(metadata, "old-python")
    tools = tmp_path / "tools"
    old = f'#!/bin/sh\ncase "$*" in *version_info*) exit 1;; esac\nexec {shlex.quote(sys.executable)} "$@"\n'
    write_program(tools / "python3", old)
    for tool in ("bash", "cat", "mktemp", "mkfifo", "tee", "timeout", "sh"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    values["PYTHON"] = ""
    machine = new_machine(cloud.endpoint, path=str(tools))

    machine.boot(rendered(values))

    assert machine.wait() == 69, machine.console()
    assert "no Python 3.11 or newer" in boot_report(cloud, run_id)["tail"]
    assert machine.halts() == ["-h now"]


def test_a_python_that_is_named_and_does_not_work_is_passed_over(
    cloud: Cloud, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine, tmp_path: Path
) -> None:
    place = agent(TELL)
    broken = write_program(tmp_path / "broken" / "python3", "#!/bin/sh\nexit 127\n")
    values["PYTHON"] = str(broken)
    machine = new_machine(cloud.endpoint, path=f"{Path(sys.executable).parent}:{os.defpath}")

    machine.boot(rendered(values))

    assert machine.wait() == 0, machine.console()
    assert place.exists()


def test_an_agent_that_dies_leaves_no_machine_behind(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "agent-dies")
    agent("import os, sys; print('last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)\n")
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 137, machine.console()
    report = boot_report(cloud, run_id)
    assert report["code"] == 137
    assert "last words" in report["tail"]
    assert "last words" in cloud.log(run_id)
    assert machine.halts() == ["-h now"]


def test_a_report_and_a_log_that_are_there_already_stay(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "first-report-stays")
    agent("import os; os.kill(os.getpid(), 9)\n")
    item = {"pk": {"S": f"LIVE#{run_id}"}, "sk": {"S": "REPORT#000001"}, "body": {"S": '{"code": 0}'}}
    cloud.client("dynamodb").put_item(TableName=TABLE, Item=item)
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"runs/{run_id}/logs/000001/000000.log", Body=b"the first log")
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))

    assert machine.wait() == 137
    assert boot_report(cloud, run_id) == {"code": 0}
    assert cloud.log(run_id) == "the first log"
    assert "could not be reported" not in machine.console()
    assert machine.halts() == ["-h now"]


def test_a_failure_that_cannot_be_reported_still_ends_the_machine(
    metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    named(metadata, "nobody-answers")
    machine = new_machine("http://127.0.0.1:9")

    machine.boot(rendered(values))

    assert machine.wait() != 0
    assert machine.halts() == ["-h now"]
    assert "could not be reported" in machine.console()


def test_a_request_to_end_is_handed_to_the_agent_and_is_no_failure(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], agent: Callable[[str], Path], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "asked-to-stop")
    place = agent(
        "import pathlib, signal\n"
        "def stop(*_):\n"
        "    pathlib.Path({place!r}).write_text('stopped')\n"
        "    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path({place!r}).write_text('ready')\n"
        "signal.pause()\n"
    )
    machine = new_machine(cloud.endpoint)
    machine.boot(rendered(values))
    eventually(place.exists, "the agent was there")

    os.kill(machine.process.pid, signal.SIGTERM)

    assert machine.wait() != 0
    assert place.read_text() == "stopped"
    assert cloud.item(f"LIVE#{run_id}", "REPORT#000001") is None
    assert machine.halts() == []


def test_nothing_secret_is_printed_or_stored(
    cloud: Cloud, metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    run_id = named(metadata, "nothing-secret")
    values["AGENT_KEY"] = "agents/none.zip"
    machine = new_machine(cloud.endpoint)

    machine.boot(rendered(values))
    machine.wait()

    stored = "".join(f.read_text(errors="replace") for f in machine.folder.rglob("*") if f.is_file())
    for text in (stored, cloud.log(run_id), json.dumps(boot_report(cloud, run_id))):
        assert SECRET_KEY not in text
        assert SESSION_TOKEN not in text


def test_an_error_of_s3_that_repeats_the_session_token_is_not_repeated(
    metadata: FakeMetadata, values: dict[str, str], new_machine: NewMachine
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>InvalidToken</Code><Token-0>{SESSION_TOKEN}</Token-0></Error>".encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        machine = new_machine(f"http://127.0.0.1:{server.server_address[1]}")
        machine.boot(rendered(values))
        machine.wait()
        server.shutdown()

    assert "InvalidToken" in machine.console()
    assert SESSION_TOKEN not in machine.console()


def test_it_signs_as_botocore_does(monkeypatch: pytest.MonkeyPatch) -> None:
    source = speaking_part()
    monkeypatch.setenv("SPOTRELAY_TIME_SCALE", "1")
    scope: dict[str, Any] = {}
    exec(compile(source[: source.rindex("\ntry:\n")], "speak.py", "exec"), scope)  # our own text
    who = {"AccessKeyId": "ASIA1", "SecretAccessKey": "secret", "Token": "token/with+signs="}
    url = "https://bucket.s3.eu-west-1.amazonaws.com/agents/a%20b~c.zip"

    ours = scope["signed"](who, "s3", "eu-west-1", "PUT", url, b"body", {"if-none-match": "*"})

    headers = {name.lower(): value for name, value in ours.header_items()}
    theirs = AWSRequest("PUT", url, {"if-none-match": "*", "host": "bucket.s3.eu-west-1.amazonaws.com"}, b"body")
    theirs.context["timestamp"] = headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials("ASIA1", "secret", "token/with+signs="), "s3", "eu-west-1")
    theirs.headers["X-Amz-Content-SHA256"] = hashlib.sha256(b"body").hexdigest()
    theirs.headers["X-Amz-Date"] = headers["x-amz-date"]
    theirs.headers["X-Amz-Security-Token"] = who["Token"]
    theirs.context["payload_signing_enabled"] = True
    text = signer.string_to_sign(theirs, signer.canonical_request(theirs))
    assert headers["authorization"].endswith(f"Signature={signer.signature(text, theirs)}")


def speaking_part() -> str:
    """The Python inside the script."""
    found = re.search(r"<<'PYTHON'\n(.*?)\nPYTHON\n", RESUME, re.DOTALL)
    assert found
    return found[1] + "\n"


def test_its_python_part_is_understood_by_python_3_6() -> None:
    ast.parse(speaking_part(), feature_version=(3, 6))


def test_shellcheck_has_nothing_to_say(tmp_path: Path, values: dict[str, str]) -> None:
    for name, text in (("template.sh", RESUME), ("rendered.sh", rendered(values))):
        (tmp_path / name).write_text(text)
        shellcheck = Path(sys.executable).with_name("shellcheck")

        done = subprocess.run([shellcheck, tmp_path / name], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout) == (0, "")


def test_it_fits_into_user_data_and_names_each_placeholder_once(values: dict[str, str]) -> None:
    assert sorted(name for _, name in PLACEHOLDER.findall(RESUME)) == sorted(values)
    assert len(re.findall("@[A-Z0-9_]+@", RESUME)) == len(values)
    generous = {name: value + "x" * 200 for name, value in values.items()}
    assert len(rendered(generous).encode()) < 16 * 1024
