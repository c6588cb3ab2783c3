"""A Spot interruption of one machine through AWS FIS, with a role and a template for nothing else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

from tests.acceptance_aws.failure import AcceptanceFailed

ACTION = "aws:ec2:send-spot-instance-interruptions"
TAG = "spotrelay:acceptance"  # its value is the stack's name
POLICY = "interrupt"
TARGET = "machine"
WARNING = "PT2M"  # from the recommendation to the end; EC2 warns two minutes before it
GONE = frozenset({"NoSuchEntity", "ResourceNotFoundException"})
ENDED = ("completed", "stopped", "failed", "cancelled")
TRIES = 8  # a role made a moment ago is not known everywhere at once
PAUSE_S = 10.0


class Interruption:
    """Made by name and found by tag, so that another process can remove it."""

    def __init__(self, fis: Any, iam: Any, stack: str, sleep: Callable[[float], None]) -> None:
        self._fis = fis
        self._iam = iam
        self._stack = stack
        self._sleep = sleep

    def send(self, machine_arn: str) -> str:
        """Interrupt this machine; returns the experiment that does it.

        Raises:
            AcceptanceFailed: FIS did not start it; the text ends with FIS's reason.
        """
        role = self._iam.create_role(**role_request(self._stack))["Role"]["Arn"]
        self._iam.put_role_policy(**policy_request(self._stack, machine_arn))
        reason = ""
        for _ in range(TRIES):
            try:
                experiment = self._start(role, machine_arn)
                reason = self._refusal(experiment)
            except ClientError as error:  # FIS checks the role when the template is made, and when it is used
                reason = str(error)
            if not reason:
                return experiment
            self._sleep(PAUSE_S)
        raise AcceptanceFailed(f"FIS did not interrupt {machine_arn}: {reason}")

    def _refusal(self, experiment: str) -> str:
        """Why an experiment that was just started fails; empty once it runs."""
        for _ in range(TRIES):
            status = self._fis.get_experiment(id=experiment)["experiment"]["state"]["status"]
            if status not in ("pending", "initiating"):
                break
            self._sleep(PAUSE_S)
        return self.failure(experiment)

    def failure(self, experiment: str) -> str:
        """Why the experiment failed; empty when it did not."""
        state = self._fis.get_experiment(id=experiment)["experiment"]["state"]
        return str(state.get("reason") or "no reason given") if state["status"] in ("failed", "cancelled") else ""

    def remove(self) -> None:
        """Stop what runs, and delete template, policy and role; harmless when there is nothing."""
        for experiment in self._tagged("list_experiments", "experiments"):
            if experiment["state"]["status"] not in ENDED:
                with _or_gone():
                    self._fis.stop_experiment(id=experiment["id"])
        self._remove_templates()
        with _or_gone():
            self._iam.delete_role_policy(RoleName=role_name(self._stack), PolicyName=POLICY)
        with _or_gone():
            self._iam.delete_role(RoleName=role_name(self._stack))

    def _start(self, role: str, machine_arn: str) -> str:
        wanted = template_request(self._stack, role, machine_arn)
        template = self._fis.create_experiment_template(**wanted)["experimentTemplate"]["id"]
        try:
            return str(self._fis.start_experiment(**start_request(self._stack, template))["experiment"]["id"])
        except ClientError:
            self._fis.delete_experiment_template(id=template)
            raise

    def _remove_templates(self) -> None:
        for template in self._tagged("list_experiment_templates", "experimentTemplates"):
            with _or_gone():
                self._fis.delete_experiment_template(id=template["id"])

    def _tagged(self, operation: str, key: str) -> list[dict[str, Any]]:
        pages = self._fis.get_paginator(operation).paginate()
        return [found for page in pages for found in page[key] if (found.get("tags") or {}).get(TAG) == self._stack]


def role_name(stack: str) -> str:
    """Of the role that FIS takes on."""
    return f"{stack}-interrupts"


def role_request(stack: str) -> dict[str, Any]:
    """Arguments of CreateRole."""
    trust = {"Effect": "Allow", "Principal": {"Service": "fis.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {
        "RoleName": role_name(stack),
        "AssumeRolePolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        "Description": "Interrupts one Spot machine of an acceptance test",
        "Tags": [{"Key": TAG, "Value": stack}],
    }


def policy_request(stack: str, machine_arn: str) -> dict[str, Any]:
    """Arguments of PutRolePolicy: this one machine."""
    statements = [
        {"Effect": "Allow", "Action": "ec2:SendSpotInstanceInterruptions", "Resource": machine_arn},
        {"Effect": "Allow", "Action": "ec2:DescribeInstances", "Resource": "*"},  # EC2 knows nothing narrower
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return {"RoleName": role_name(stack), "PolicyName": POLICY, "PolicyDocument": document}


def template_request(stack: str, role_arn: str, machine_arn: str) -> dict[str, Any]:
    """Arguments of CreateExperimentTemplate."""
    return {
        "clientToken": secrets.token_hex(16),
        "description": f"Interrupts one machine of {stack}",
        "stopConditions": [{"source": "none"}],
        "targets": {
            TARGET: {"resourceType": "aws:ec2:spot-instance", "resourceArns": [machine_arn], "selectionMode": "ALL"}
        },
        "actions": {
            "interrupt": {
                "actionId": ACTION,
                "parameters": {"durationBeforeInterruption": WARNING},
                "targets": {"SpotInstances": TARGET},
            }
        },
        "roleArn": role_arn,
        "tags": {TAG: stack},
    }


def start_request(stack: str, template: str) -> dict[str, Any]:
    """Arguments of StartExperiment."""
    return {"clientToken": secrets.token_hex(16), "experimentTemplateId": template, "tags": {TAG: stack}}


@contextmanager
def _or_gone() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise
