"""The function that reaches hosts, the role of their machines, and the sessions of it: what they may, and may not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from handlers import hosts as handler
from handlers import settings
from infra.assets import MODELS, Target, hosts_bundle, lambda_bundle
from infra.host import host_architecture, host_python
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec
from spotrelay.hosts.rights import PLAIN_MOST, Ground, session_policy
from spotrelay.localcloud.policy import evaluate
from tests.infra.reading import ACCOUNT, REGION, Template

CONTROL = ("InterruptionsWorker", "RunsWorker", "SweepWorker")
FUNCTION = "HostsWorker"
HEAVY = ("asyncssh", "cryptography", "spotrelay.hosts")
CODE = f"code/{'0' * 64}.tar.gz"
SPEC = Spec(("train",), ("g5.xlarge",), code_key=CODE, secrets={"TOKEN": "ssm:/spotrelay/token"})
RUN = Run("mine", SPEC, datetime(2026, 1, 5, tzinfo=UTC))


def may(policies: list[dict[str, Any]], action: str, resource: str, **context: Any) -> bool:
    return bool(evaluate(policies, action, resource, context).allowed)


@pytest.fixture
def ground(home: Template) -> Ground:
    bucket = home.arn("AWS::S3::Bucket", "VaultBucket").removeprefix("arn:aws:s3:::")
    role = home.arn("AWS::IAM::Role", "HostsMachineRole")
    return Ground(role, REGION, bucket, home.name("AWS::DynamoDB::Table", "Store"), "Spotrelay")


@pytest.fixture
def machine(home: Template, ground: Ground) -> Any:
    """Whether a host's machine of the run `mine` may do this: its role and its session must both allow it."""
    role, session = home.policies("HostsMachineRole"), [json.loads(session_policy(RUN, ground))]
    return lambda action, resource, **context: all(may(p, action, resource, **context) for p in (role, session))


def test_a_hosts_machine_does_for_its_run_what_a_machine_of_ec2_does(machine: Any, home: Template) -> None:
    bucket, table = home.arn("AWS::S3::Bucket", "VaultBucket"), home.arn("AWS::DynamoDB::Table", "Store")

    assert machine("s3:GetObject", f"{bucket}/{CODE}")
    for action in ("GetObject", "GetObjectVersion", "PutObject", "AbortMultipartUpload"):
        assert machine(f"s3:{action}", f"{bucket}/runs/mine/shards/x"), action
    for key in ("RUN#mine", "LIVE#mine"):
        assert machine("dynamodb:Query", table, **{"dynamodb:LeadingKeys": [key]}), key
    for action in ("PutItem", "UpdateItem", "ConditionCheckItem"):
        assert machine(f"dynamodb:{action}", table, **{"dynamodb:LeadingKeys": ["LIVE#mine"]}), action
    bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/Spotrelay"
    assert machine("events:PutEvents", bus, **{"events:source": "spotrelay"})
    assert machine("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay/token")


def test_a_hosts_machine_reaches_no_other_run(machine: Any, home: Template) -> None:
    bucket, table = home.arn("AWS::S3::Bucket", "VaultBucket"), home.arn("AWS::DynamoDB::Table", "Store")

    for key in ("runs/mine-too/shards/x", "runs/other/shards/x", f"code/{'1' * 64}.tar.gz"):
        assert not machine("s3:GetObject", f"{bucket}/{key}"), key
        assert not machine("s3:PutObject", f"{bucket}/{key}"), key
    for key in ("LIVE#other", "RUN#other", "HOSTS", "INSTANCE#h-1", "EXPERIENCE"):
        assert not machine("dynamodb:GetItem", table, **{"dynamodb:LeadingKeys": [key]}), key
        assert not machine("dynamodb:PutItem", table, **{"dynamodb:LeadingKeys": [key]}), key
    assert not machine("dynamodb:PutItem", table, **{"dynamodb:LeadingKeys": ["RUN#mine"]})
    assert not machine("dynamodb:PutItem", table, **{"dynamodb:LeadingKeys": ["LIVE#mine", "LIVE#other"]})
    assert not machine("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay/another")
    assert not machine("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay-hosts/lab1")
    for action in ("s3:DeleteObject", "s3:DeleteObjectVersion", "ec2:RunInstances", "sts:AssumeRole"):
        assert not machine(action, f"{bucket}/runs/mine/shards/x"), action


@pytest.mark.parametrize("count", [0, 1, 200])
def test_a_session_policy_is_never_longer_than_sts_takes(ground: Ground, count: int) -> None:
    names = {f"V{n}": f"ssm:/spotrelay/{'x' * 40}-{n}" for n in range(count)}
    run = replace(RUN, run_id="a" * 40, spec=replace(SPEC, secrets=names))

    text = session_policy(run, ground)

    assert len(text) <= PLAIN_MOST
    parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay/{'x' * 40}-0"
    assert may([json.loads(text)], "ssm:GetParameter", parameter) is (count > 0)


def test_only_the_function_that_reaches_hosts_reads_their_keys_and_hands_out_rights(home: Template) -> None:
    role = home.arn("AWS::IAM::Role", "HostsMachineRole")
    parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/spotrelay-hosts/lab1"
    secret = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:spotrelay-hosts/lab1-AbCdEf"

    reaches = home.policies(f"{FUNCTION}Role")
    assert may(reaches, "sts:AssumeRole", role)
    assert may(reaches, "ssm:GetParameter", parameter) and may(reaches, "secretsmanager:GetSecretValue", secret)
    for other in (*(f"{name}Role" for name in CONTROL), "IdentityRole", "HostsMachineRole"):
        policies = home.policies(other)
        assert not may(policies, "sts:AssumeRole", role), other
        assert not may(policies, "ssm:GetParameter", parameter), other
        assert not may(policies, "secretsmanager:GetSecretValue", secret), other


def test_nobody_else_may_take_the_role_of_hosts_machines(home: Template) -> None:
    trust = home.one("AWS::IAM::Role", "HostsMachineRole")["AssumeRolePolicyDocument"]["Statement"]

    assert [s["Principal"] for s in trust] == [{"AWS": home.arn("AWS::IAM::Role", f"{FUNCTION}Role")}]


def test_the_function_that_reaches_hosts_reads_rows_and_writes_none(home: Template) -> None:
    policies, table = home.policies(f"{FUNCTION}Role"), home.arn("AWS::DynamoDB::Table", "Store")

    for key in ("RUN#a", "LIVE#a", "INSTANCE#h-1", "HOSTS"):
        assert may(policies, "dynamodb:Query", table, **{"dynamodb:LeadingKeys": [key]}), key
        for action in ("PutItem", "UpdateItem", "DeleteItem"):
            assert not may(policies, f"dynamodb:{action}", table, **{"dynamodb:LeadingKeys": [key]}), action
    assert not may(policies, "ec2:CreateFleet", "*")
    assert not may(policies, "s3:GetObject", home.arn("AWS::S3::Bucket", "VaultBucket") + "/runs/a/shards/x")


@pytest.mark.parametrize("worker", CONTROL)
def test_the_control_plane_calls_that_function_and_no_other(home: Template, worker: str) -> None:
    policies = home.policies(f"{worker}Role")

    assert may(policies, "lambda:InvokeFunction", home.arn("AWS::Lambda::Function", FUNCTION))
    assert not may(policies, "lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:other")
    told = home.one("AWS::Lambda::Function", worker)["Environment"]["Variables"]
    assert settings.read_settings(told).hosts_function == home.outputs["HostsFunction"]


def test_the_function_is_told_what_its_handler_reads(home: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = home.one("AWS::Lambda::Function", FUNCTION)["Environment"]["Variables"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    handler.wire(settings.read_settings(variables), variables)  # raises where something is missing

    assert variables[settings.HOST_ROLE] == home.arn("AWS::IAM::Role", "HostsMachineRole")


def test_ssh_is_in_one_bundle_and_not_in_the_others() -> None:
    target = Target(host_architecture(), host_python())
    hosts, others = hosts_bundle(target), lambda_bundle(target)

    assert {"asyncssh", "cryptography"} <= {path.name for path in hosts.tree.iterdir()}
    assert not {"asyncssh", "cryptography"} & {path.name for path in others.tree.iterdir()}
    assert (hosts.tree / "spotrelay" / "hosts" / "keeper.py").is_file(), "its text is what is sent to hosts"
    assert (hosts.tree / MODELS).is_dir()


@pytest.mark.parametrize("module", ["interruptions", "runs", "sweep"])
def test_no_function_on_the_way_of_a_notice_imports_ssh(module: str) -> None:
    code = f"import handlers.{module}, handlers.wiring, sys; print([m for m in sys.modules if m in {HEAVY!r}])"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"
