"""What a host's machine may do, and for how long: a session of one role, narrowed to its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.aws.layout import live_key, run_key
from spotrelay.core.run import Run

SESSION_S = 3600  # the longest that AWS lets a function's role hand on
PLAIN_MOST = 2048  # characters of a session policy


class Issuer(Protocol):
    """Hands out rights."""

    def issue(self, run: Run, machine: str) -> dict[str, str]:
        """Fresh credentials for one machine of a run, as `credential_process` prints them.

        Raises:
            Unavailable, Contention: not at present.
        """
        ...


@dataclass(frozen=True)
class Ground:
    """Where a stack's things are."""

    role: str  # ARN of the role that hosts' machines get sessions of
    region: str
    bucket: str
    table: str
    bus: str

    def arn(self, service: str, resource: str) -> str:
        """Of a thing in the stack's region and account."""
        partition, account = self.role.split(":")[1], self.role.split(":")[4]
        where = "::" if service == "s3" else f"{self.region}:{account}:"
        return f"arn:{partition}:{service}:{where}{resource}"


class StsIssuer:
    """An `Issuer` that assumes the role of hosts' machines."""

    def __init__(self, sts: Any, ground: Ground) -> None:
        self._sts = sts
        self._ground = ground

    def issue(self, run: Run, machine: str) -> dict[str, str]:
        """Credentials of one session, named after the machine in CloudTrail."""
        try:
            answer = self._sts.assume_role(
                RoleArn=self._ground.role, RoleSessionName=machine, DurationSeconds=SESSION_S,
                Policy=session_policy(run, self._ground),
            )  # fmt: skip
        except FAILURES as error:
            raise failed_read(error, f"asking for credentials of {machine}") from error
        given = answer["Credentials"]
        ends: datetime = given["Expiration"]
        return {
            "AccessKeyId": given["AccessKeyId"], "SecretAccessKey": given["SecretAccessKey"],
            "SessionToken": given["SessionToken"], "Expiration": ends.astimezone(UTC).isoformat(),
        }  # fmt: skip


def session_policy(run: Run, ground: Ground) -> str:
    """At most what this run's attempts need; the role itself bounds it once more.

    Listing the bucket is needed whole: without it S3 answers a missing object with 403, from which nothing follows.
    """
    bucket, rows = ground.arn("s3", ground.bucket), [ground.arn("dynamodb", f"table/{ground.table}")]
    objects = f"{bucket}/runs/{run.run_id}/*"
    code = [f"{bucket}/{run.spec.code_key}"] if run.spec.code_key else []
    live, row = live_key(run.run_id), run_key(run.run_id)
    statements = [
        _allow(["s3:ListBucket"], [bucket]),
        _allow(["s3:GetObject", "s3:GetObjectVersion"], [objects, *code]),
        _allow(["s3:PutObject", "s3:AbortMultipartUpload"], [objects]),
        _allow(["dynamodb:GetItem", "dynamodb:Query"], rows, keys=[row, live]),
        _allow(["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem"], rows, keys=[live]),
        _allow(["events:PutEvents"], [ground.arn("events", f"event-bus/{ground.bus}")]),
    ]
    references = [_secret(reference, ground) for reference in sorted(set(run.spec.secrets.values()))]
    if not references:
        return _text(statements)
    statements.append(_allow(["kms:Decrypt"], ["*"]))  # the role names the keys
    reads = ["ssm:GetParameter", "secretsmanager:GetSecretValue"]
    whole = _text([*statements, _allow(reads, references)])
    # too many to be named: then those that the role may read, as on EC2
    return whole if len(whole) <= PLAIN_MOST else _text([*statements, _allow(reads, ["*"])])


def _allow(actions: list[str], resources: list[str], keys: Sequence[str] = ()) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    if keys:
        named = {"dynamodb:LeadingKeys": list(keys)}
        statement["Condition"] = {"ForAllValues:StringEquals": named, "Null": {"dynamodb:LeadingKeys": "false"}}
    return statement


def _secret(reference: str, ground: Ground) -> str:
    kind, _, name = reference.partition(":")
    if kind == "ssm":
        return ground.arn("ssm", f"parameter/{name.lstrip('/')}")
    return name if name.startswith("arn:") else ground.arn("secretsmanager", f"secret:{name}*")


def _text(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
