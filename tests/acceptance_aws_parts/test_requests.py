"""Every request that goes to AWS is one that AWS's own service models describe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance_aws import evidence, interruption, machines, money
from tests.acceptance_aws_parts.fault_injection import check_request

STACK = "SpotrelayTest-abc123"
MACHINE = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
ROLE = "arn:aws:iam::123456789012:role/x"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("iam", "CreateRole", interruption.role_request(STACK)),
    ("iam", "PutRolePolicy", interruption.policy_request(STACK, MACHINE)),
    ("iam", "DeleteRolePolicy", {"RoleName": interruption.role_name(STACK), "PolicyName": interruption.POLICY}),
    ("iam", "DeleteRole", {"RoleName": interruption.role_name(STACK)}),
    ("fis", "CreateExperimentTemplate", interruption.template_request(STACK, ROLE, MACHINE)),
    ("fis", "StartExperiment", interruption.start_request(STACK, "EXT1")),
    ("ec2", "DescribeInstances", {"Filters": machines.tagged(STACK, "running")}),
    ("ec2", "DescribeSpotPriceHistory", money.price_request(("t3a.medium",), NOW)),
    ("dynamodb", "Query", evidence.commits_request("table", "run")),
]


@pytest.mark.parametrize(("service", "operation", "request_"), REQUESTS, ids=[f"{s}-{o}" for s, o, _ in REQUESTS])
def test_a_request_is_what_the_service_model_describes(service: str, operation: str, request_: dict[str, Any]) -> None:
    check_request(service, operation, request_)


def test_fis_may_interrupt_this_one_machine_only() -> None:
    statements = json.loads(interruption.policy_request(STACK, MACHINE)["PolicyDocument"])["Statement"]

    assert [(s["Action"], s["Resource"]) for s in statements if s["Resource"] != "*"] == [
        ("ec2:SendSpotInstanceInterruptions", MACHINE)
    ]
    assert [s["Action"] for s in statements if s["Resource"] == "*"] == ["ec2:DescribeInstances"]


def test_the_experiment_aims_at_this_machine_with_the_notice_of_two_minutes() -> None:
    template = interruption.template_request(STACK, ROLE, MACHINE)

    (target,), (action,) = template["targets"].values(), template["actions"].values()
    assert target["resourceArns"] == [MACHINE] and target["resourceType"] == "aws:ec2:spot-instance"
    assert action["parameters"] == {"durationBeforeInterruption": "PT2M"}
    assert action["targets"] == {"SpotInstances": next(iter(template["targets"]))}
