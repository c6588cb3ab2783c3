"""MiniStack's private names that the embedded cloud stands on are there, with the parameters that it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from spotrelay.localcloud import emulator

NAMES = {
    "ministack.app": ("app", "AUTH"),
    "ministack.core.iam_actions": (
        "dynamodb_service_context(body)",
        "request_tag_context(service, iam_action, body, params)",
        "extract_iam_action(service, method, path, headers, body, query_params)",
    ),
    "ministack.core.iam_evaluator": (
        "pin_signed_request(method, raw_path, query_params, raw_headers)",
        "pin_signed_body(body)",
        "authenticate(access_key_id, account_id)",
        "resolve_caller_identity(access_key_id)",
        "is_root_access_key(access_key_id)",
        "_resolve_managed_policy_document(policy_arn, account_id)",
        "AuthError",
        "enforce(access_key_id, iam_action, service, region, resource_arn, service_context)",
    ),
    "ministack.core.lambda_runtime": (
        "_worker_class_for(config)",
        "acquire_worker(func_name, config, code_zip, qualifier, max_concurrency)",
        "execution_credentials(config)",
        "reset()",
    ),
    "ministack.core.responses": ("request_scope(account_id, region)",),
    "ministack.core.router": (
        "detect_service(method, path, headers, query_params)",
        "extract_access_key_id(headers, query_params)",
        "extract_region(headers, query_params)",
    ),
    "ministack.core.sigv4": (
        "parse_header_signature(headers)",
        "parse_query_signature(query_params)",
        "header_signature_failure(signature, secret, method, raw_path, query_params, headers, body)",
    ),
    "ministack.services.dynamodb": ("_tables",),
    "ministack.services.cloudformation.provisioners": ("_ec2_sg_permissions(rules)", "_RESOURCE_HANDLERS"),
    "ministack.services.ec2": ("_launch_templates", "_subnets", "_security_groups"),
    "ministack.services.eventbridge": (
        "_dispatch_event(event)",
        "_dispatch_to_event_bus(spec, event, rule, event_path, target_input_payload)",
    ),
    "ministack.services.iam": ("_roles", "_users", "_user_inline_policies", "_instance_profiles"),
    "ministack.services.lambda_svc": ("acquire_worker", "_sqs_esm_concurrency(esm, func_rec, config, queue)"),
    "ministack.services.s3": (
        "_crc32c(body)",
        "_crc64nvme(body)",
        "_record_object_version(bucket_name, key, prior_obj, obj, data)",
        "_in_account(account_id)",
        "_object_versions",
        "_buckets",
    ),
    "ministack.services.scheduler": ("_schedules",),
    "ministack.services.sts": ("register_session(access_key, session)", "_sessions"),
}

PROBE = """
import importlib, inspect, json, sys
missing = []
for module, names in json.loads(sys.argv[1]).items():
    loaded = importlib.import_module(module)
    for name in names:
        bare, _, parameters = name.partition("(")
        found = getattr(loaded, bare, None)
        if found is None:
            missing.append(f"{module}.{bare}")
        elif parameters:
            known = inspect.signature(found).parameters
            wanted = [p.strip() for p in parameters.rstrip(")").split(",") if p.strip()]
            missing.extend(f"{module}.{bare}({p})" for p in wanted if p not in known)
print(json.dumps(missing))
"""


@pytest.fixture(scope="module")
def missing(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    own = {**os.environ, "STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    command = [sys.executable, "-c", PROBE, json.dumps(NAMES)]
    probe = subprocess.run(command, capture_output=True, check=True, text=True, env=own)
    return list(json.loads(probe.stdout.splitlines()[-1]))


def test_the_pinned_release_is_the_one_installed() -> None:
    assert version("ministack") == emulator.VERSION


def test_every_private_name_that_is_used_exists_with_the_parameters_that_are_used(missing: list[str]) -> None:
    assert missing == []
