"""What the verdict is drawn from: EC2, the table's items, the objects in S3, and the runs' own records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spotrelay.aws import layout
from spotrelay.console.demo.reference import digest_in, losses_in
from spotrelay.console.demo.weights import weights_digest
from spotrelay.console.logs import chunks
from spotrelay.console.wiring import Services
from spotrelay.core.checkpoint import CheckpointId, Commit, decode_manifest, digest_of
from spotrelay.core.errors import Damaged
from spotrelay.core.run import Entry, Run
from tests.acceptance_aws.machines import Machine


@dataclass(frozen=True)
class Committed:
    """A checkpoint that the table says exists, and when S3 took its manifest, by S3's clock."""

    id: CheckpointId
    step: int
    written_at: datetime


@dataclass(frozen=True)
class Trained:
    """One run, from the outside."""

    run: Run
    timeline: list[Entry]
    machines: list[Machine]
    commits: list[Committed]  # in the order of their ids
    digest_printed: str  # by its last attempt
    digest_stored: str  # of the weights in its last verified checkpoint, from the bytes in S3
    losses: dict[int, dict[int, float]]  # generation → step → loss, as printed


@dataclass(frozen=True)
class Evidence:
    """Everything, before it is judged."""

    interrupted: Trained
    reference: Trained
    taken: str  # the machine that FIS took
    still_running: list[Machine] = field(default_factory=list)  # when all should be over


def gather(
    services: Services, dynamodb: Any, s3: Any, table: str, bucket: str, run: Run, seen: list[Machine]
) -> Trained:
    """One run's part, once it is over."""
    texts: dict[int, str] = {}
    for chunk in chunks(services, run.run_id, None, follow=False):
        texts[chunk.attempt] = texts.get(chunk.attempt, "") + chunk.text
    return Trained(
        run=run,
        timeline=services.runs.timeline(run.run_id),
        machines=[machine for machine in seen if machine.run_id == run.run_id],
        commits=[_committed(commit, s3, bucket) for commit in read_commits(dynamodb, table, run.run_id)],
        digest_printed=digest_in(texts.get(max(texts, default=0), "")),
        digest_stored=_stored(services, run),
        losses={generation: losses_in(text) for generation, text in texts.items()},
    )


def read_commits(dynamodb: Any, table: str, run_id: str) -> list[Commit]:
    """Every commit of a run, from the table's items, in the order of their keys."""
    pages = dynamodb.get_paginator("query").paginate(**commits_request(table, run_id))
    return [layout.read_commit(item) for page in pages for item in page["Items"]]


def commits_request(table: str, run_id: str) -> dict[str, Any]:
    """Arguments of Query."""
    return {
        "TableName": table,
        "ConsistentRead": True,
        "KeyConditionExpression": "pk = :pk AND begins_with(sk, :sk)",
        "ExpressionAttributeValues": {":pk": {"S": layout.live_key(run_id)}, ":sk": {"S": "COMMIT#"}},
    }


def _committed(commit: Commit, s3: Any, bucket: str) -> Committed:
    found = s3.head_object(Bucket=bucket, Key=commit.manifest_key, VersionId=commit.manifest_version)
    return Committed(commit.id, commit.step, found["LastModified"])


def _stored(services: Services, run: Run) -> str:
    last = max((c for c in run.checkpoints if c.verified), key=lambda c: c.id, default=None)
    if last is None:
        return ""
    body = services.objects.get(last.commit.manifest_key, last.commit.manifest_version)
    if digest_of(body) != last.commit.manifest_digest:
        raise Damaged(f"the manifest of checkpoint {last.id} is not the one that was committed")
    return weights_digest(decode_manifest(body), services.objects.get)
