"""The rule packs: cdk-nag's AwsSolutions, and the CDK library's own check of the template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cdk_nag import AwsSolutionsChecks

from infra.agent import Archive
from infra.app import build_app
from infra.assets import Bundle

pytestmark = pytest.mark.nag

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "home_region": "us-east-1",
        "home": {"table": "the-table", "bucket": "the-bucket"},
        "regions": {
            "eu-west-1": {
                "place": {"launch_template": "lt-0f", "version": "4", "subnets": {"eu-west-1a": "subnet-0e"}},
                "replica": True,
            },
            "us-west-2": {"vpc": {"id": "vpc-0a", "subnets": {"us-west-2a": "subnet-0b"}}},
        },
        "flow_logs": True,
        "alarm_email": "ops@example.org",
        "secrets": {"secretsmanager": ["arn:aws:secretsmanager:us-east-1:111122223333:secret:team/*"]},
    },
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_finding_is_left_unacknowledged(name: str, bundle: Bundle, agent: Archive, tmp_path: Path) -> None:
    app = build_app({"spotrelay": CONFIGURATIONS[name]}, outdir=tmp_path, validate=False, bundle=bundle, agent=agent)

    found = [
        v.rule_name for stack in app.node.children for v in AwsSolutionsChecks(app).validate_scope(stack).violations
    ]

    assert found == []


def test_the_rule_pack_really_looks(bundle: Bundle, agent: Archive, tmp_path: Path) -> None:
    from aws_cdk import Stack, aws_sqs

    app = build_app({}, outdir=tmp_path, validate=False, bundle=bundle, agent=agent)
    careless = Stack(app, "Careless")
    aws_sqs.Queue(careless, "Queue")

    found = {violation.rule_name for violation in AwsSolutionsChecks(app).validate_scope(careless).violations}

    assert "AwsSolutions-SQS4" in found


def test_the_librarys_own_check_finds_nothing(bundle: Bundle, agent: Archive, tmp_path: Path) -> None:
    context = {"@aws-cdk/core:validateAgainstDefaultRules": True}

    build_app(context, outdir=tmp_path, validate=True, bundle=bundle, agent=agent).synth()

    report = tmp_path / "validation-report.json"
    assert json.loads(report.read_text())["pluginReports"] == []
