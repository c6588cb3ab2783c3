"""The bundle that is deployed, under AWS's own runtime client, against an emulated AWS over HTTP.

The interpreter is bare: what the bundle does not bring, besides boto3, is not there.
"""

from __future__ import annotations

import json
import secrets
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers import settings
from infra.assets import Target, lambda_bundle
from infra.host import host_architecture, host_python
from spotrelay.core.notice import InstanceState
from spotrelay.core.run import RunStatus
from spotrelay.testing.ministack import ministack
from tests.handlers.emulated import Stack, make_stack
from tests.handlers.lambda_python import bare_python, managed_runtime
from tests.handlers.plane import batch, changed, warning
from tests.handlers.runtime_api import Function, FunctionFailed

REGION = "us-east-1"


@pytest.fixture(scope="session")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, zipped and unzipped as Lambda does it."""
    bundle = lambda_bundle(Target(host_architecture(), host_python()))
    home = tmp_path_factory.mktemp("asset")
    with zipfile.ZipFile(bundle.archive) as archive:
        archive.extractall(home / "task")
    return home / "task"


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return managed_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ministack(tmp_path_factory.mktemp("ministack")) as address:
        yield address


@pytest.fixture
def stack(endpoint: str, monkeypatch: pytest.MonkeyPatch, asset: Path, runtime: Path) -> Stack:
    access = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": f"{secrets.randbelow(10**12):012d}",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    return make_stack(access, asset, runtime)


Start = Callable[[str], Function]


@pytest.fixture
def start(stack: Stack, asset: Path) -> Iterator[Start]:
    """Start one of the three functions; all are ended with the test."""
    started: list[Function] = []

    def begin(name: str) -> Function:
        function = Function(bare_python(), asset, f"handlers.{name}.handler", stack.environment)
        started.append(function.__enter__())
        return function

    yield begin
    for function in started:
        function.__exit__(None, None, None)


def ours(kind: str, **detail: Any) -> dict[str, Any]:
    return {"source": "spotrelay", "detail-type": kind, "detail": detail}


def test_the_deployed_functions_carry_a_run_over_a_notice(stack: Stack, start: Start) -> None:
    stack.submit("run-1")
    runs, interruptions = start("runs"), start("interruptions")

    assert runs.invoke(batch(ours("Run Submitted", run_id="run-1"))) == {"batchItemFailures": []}
    machine = stack.train("run-1")
    answer = interruptions.invoke(batch(warning(machine), warning(machine), changed(machine, InstanceState.RUNNING)))

    assert answer == {"batchItemFailures": []}
    run = stack.store.load("run-1")
    assert run.status is RunStatus.HANDOVER, interruptions.output
    assert [a.generation for a in run.attempts] == [1, 2]
    assert sorted(stack.machines()) == sorted(a.instance_id or "" for a in run.attempts)
    assert run.checkpoints[0].verified


def test_the_deployed_sweep_finds_what_nobody_told(stack: Stack, start: Start) -> None:
    stack.submit("run-1")

    found = start("sweep").invoke({})

    assert found == {"due": 1, "machines": 0}
    (message,) = stack.clients.client("sqs").receive_message(QueueUrl=stack.environment[settings.RUNS_QUEUE])[
        "Messages"
    ]
    assert start("runs").invoke(batch(json.loads(message["Body"]))) == {"batchItemFailures": []}
    assert stack.store.load("run-1").status is RunStatus.STARTING


def test_bad_input_is_kept_in_the_log_and_counted(stack: Stack, start: Start) -> None:
    interruptions = start("interruptions")

    answer = interruptions.invoke(batch("{]", warning("i-0123456789abcdef0")))

    assert answer == {"batchItemFailures": []}
    lines = interruptions.lines()
    (kept,) = [line for line in lines if line.get("message") == "event quarantined"]
    assert kept["bytes_base64"] == "e10=" and kept["level"] == "ERROR"
    metrics = {name: line[name] for line in lines if "_aws" in line for name in line if name.startswith("Events")}
    assert metrics == {
        settings.QUARANTINED: [1.0],
        settings.NOT_OURS: [1.0],
        settings.RECEIVED: [1.0, 1.0],
    }
    (emf,) = [line for line in lines if settings.QUARANTINED in line]
    assert emf[settings.SERVICE_DIMENSION] == "Spotrelay"
    assert emf["_aws"]["CloudWatchMetrics"][0]["Namespace"] == settings.METRICS_NAMESPACE


def test_a_table_that_is_not_there_brings_the_record_back_and_says_so(stack: Stack, start: Start) -> None:
    stack.environment[settings.TABLE] = "no-such-table"
    interruptions = start("interruptions")

    answer = interruptions.invoke(batch(warning("i-0123456789abcdef0")))

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-0"}]}
    interruptions.wrote("no-such-table")


def test_a_function_that_was_deployed_without_its_settings_names_them(stack: Stack, start: Start) -> None:
    del stack.environment[settings.TABLE]

    with pytest.raises(FunctionFailed, match=settings.TABLE):
        start("runs").invoke(batch(ours("Run Submitted", run_id="run-1")))


def test_the_asset_brings_what_it_needs_and_nothing_that_it_must_not(asset: Path) -> None:
    names = {path.name for path in asset.iterdir()}

    assert {"handlers", "spotrelay", "pydantic", "aws_lambda_powertools"} <= names
    assert not names & {"torch", "numpy", "boto3", "botocore", "trainer_shim", "infra", "tests"}
