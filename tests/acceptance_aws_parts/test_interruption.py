"""Interrupting through FIS, and leaving nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.interruption import TRIES, Interruption, role_name
from tests.acceptance_aws_parts.fault_injection import FaultInjection

STACK = "SpotrelayTest-abc123"
MACHINE = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with mock_aws():
        yield boto3.client("iam", region_name="us-east-1")


@pytest.fixture
def taken() -> list[str]:
    return []


@pytest.fixture
def fis(taken: list[str]) -> FaultInjection:
    return FaultInjection(taken.append)


def interruption(fis: FaultInjection, iam: Any, stack: str = STACK) -> Interruption:
    return Interruption(fis, iam, stack, lambda _: None)


def test_the_machine_is_interrupted_once(fis: FaultInjection, iam: Any, taken: list[str]) -> None:
    experiment = interruption(fis, iam).send(MACHINE)

    assert taken == ["i-0123456789abcdef0"]
    assert interruption(fis, iam).failure(experiment) == ""


def test_a_role_that_is_not_known_everywhere_yet_is_tried_again(
    fis: FaultInjection, iam: Any, taken: list[str]
) -> None:
    fis.refusals = ["the role cannot be assumed"] * 3

    interruption(fis, iam).send(MACHINE)

    assert taken == ["i-0123456789abcdef0"]


def test_an_experiment_that_always_fails_is_told_with_the_reason(
    fis: FaultInjection, iam: Any, taken: list[str]
) -> None:
    fis.refusals = ["the account has no FIS"] * TRIES

    with pytest.raises(AcceptanceFailed, match="the account has no FIS"):
        interruption(fis, iam).send(MACHINE)

    assert taken == []


def test_another_process_can_remove_everything(fis: FaultInjection, iam: Any) -> None:
    experiment = interruption(fis, iam).send(MACHINE)
    fis.experiments[experiment]["state"] = {"status": "running"}

    interruption(fis, iam).remove()

    assert not fis.templates
    assert fis.experiments[experiment]["state"]["status"] == "stopped"
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName=role_name(STACK))


def test_removing_nothing_is_no_error(fis: FaultInjection, iam: Any) -> None:
    interruption(fis, iam).remove()

    assert fis.calls == []


def test_what_another_test_made_stays(fis: FaultInjection, iam: Any) -> None:
    interruption(fis, iam, "SpotrelayTest-other").send(MACHINE)

    interruption(fis, iam).remove()

    assert len(fis.templates) == 1
    assert iam.get_role(RoleName=role_name("SpotrelayTest-other"))
