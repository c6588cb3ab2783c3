"""What the verdict is drawn from: the cloud's request log, EC2's ledger, the process table, S3, and our own records."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotrelay.console.demo.processes import living_in
from spotrelay.console.demo.reference import digest_in, losses_in
from spotrelay.console.demo.scenes import Reclaim
from spotrelay.console.demo.stage import Stage
from spotrelay.console.demo.weights import weights_digest
from spotrelay.console.logs import chunks
from spotrelay.core.checkpoint import decode_manifest, digest_of
from spotrelay.core.errors import Damaged
from spotrelay.core.run import Entry, Run

COMMIT = re.compile(r"Put \S+ LIVE#\S+ COMMIT#(\d+)#(\d+)")  # not: a promotion, or what a commit builds on


@dataclass(frozen=True)
class Request:
    """One line of the cloud's request log that the verdict looks at."""

    at_s: float  # arrival, epoch seconds
    instance_id: str  # empty when no machine of ours sent it
    what: str  # "take" of the lease, "commit", or "launch"
    checkpoint: str  # of a commit: "generation.save"
    status: int | None  # HTTP; None: never applied
    error: str = ""

    @property
    def applied(self) -> bool:
        return self.status == 200


@dataclass(frozen=True)
class Machine:
    """One instance, as EC2's own ledger has it."""

    instance_id: str
    generation: int  # from its tags
    state: str
    instance_type: str
    zone: str


@dataclass
class Evidence:
    """Everything, before it is judged."""

    run: Run
    timeline: list[Entry]
    reclaims: list[Reclaim]
    requests: list[Request]
    machines: list[Machine]
    digest_printed: str  # by the run's last attempt
    digest_stored: str  # of the weights in its last checkpoint, from the bytes in S3
    digest_reference: str  # of the uninterrupted run
    losses: dict[int, dict[int, float]]  # generation → step → loss, as printed
    losses_reference: dict[int, float]
    processes: list[str] = field(default_factory=list)  # still alive when all should be over


def collect(stage: Stage, reclaims: list[Reclaim], home: Path) -> Evidence:
    """Gather it, once the run and the uninterrupted run are over."""
    run = stage.look()
    texts: dict[int, str] = {}
    for chunk in chunks(stage.services, stage.run_id, None, follow=False):
        texts[chunk.attempt] = texts.get(chunk.attempt, "") + chunk.text
    return Evidence(
        run=run,
        timeline=stage.services.runs.timeline(stage.run_id),
        reclaims=reclaims,
        requests=requests_of(stage.cloud.requests(), stage.run_id),
        machines=[machine_of(instance) for instance in stage.cloud.instances()],
        digest_printed=_printed_digest(run, texts),
        digest_stored=_stored_digest(stage, run),
        digest_reference=stage.reference.digest(),
        losses={generation: losses_in(text) for generation, text in texts.items()},
        losses_reference=stage.reference.losses(),
        processes=[f"{pid} {name}" for pid, name in living_in(home / "instances").items()],
    )


def requests_of(log: list[dict[str, Any]], run_id: str) -> list[Request]:
    """The lease takings, commits and launches in a request log, oldest first."""
    found = (_request(entry, run_id) for entry in sorted(log, key=lambda e: e["mono"]))
    return [request for request in found if request is not None]


def _request(entry: dict[str, Any], run_id: str) -> Request | None:
    target, instance = str(entry.get("target") or ""), str(entry.get("instance_id") or "")
    what, checkpoint = "", ""
    if entry["service"] == "dynamodb" and instance and f"LIVE#{run_id} " in target:
        committed = COMMIT.search(target) if entry["action"] == "TransactWriteItems" else None
        if committed is not None:
            what, checkpoint = "commit", f"{int(committed[1])}.{int(committed[2])}"
        elif entry["action"] in ("UpdateItem", "PutItem") and target.endswith(" LEASE"):
            what = "take"
    elif entry["service"] == "ec2" and entry["action"] == "CreateFleet":
        what = "launch"
    if not what:
        return None
    return Request(float(entry["at"]), instance, what, checkpoint, entry["status"], str(entry.get("error") or ""))


def machine_of(instance: dict[str, Any]) -> Machine:
    """An instance of EC2's ledger."""
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    return Machine(
        instance["InstanceId"],
        int(tags.get("spotrelay:generation", 0)),
        str(instance["State"]["Name"]),
        str(instance["InstanceType"]),
        str(instance["Placement"]["AvailabilityZone"]),
    )


def _printed_digest(run: Run, texts: dict[int, str]) -> str:
    """What the last attempt's program said, in its log or in the tail that came with its exit report."""
    last = run.current.generation if run.current else 0
    tails = [report.tail for report in run.reports if report.generation == last]
    return next((found for text in (texts.get(last, ""), *tails) if (found := digest_in(text))), "")


def _stored_digest(stage: Stage, run: Run) -> str:
    """Digest of the weights in the last checkpoint, its manifest compared with what was committed."""
    last = max((c for c in run.checkpoints if c.usable), key=lambda c: c.id, default=None)
    if last is None:
        return ""
    objects = stage.services.objects
    body = objects.get(last.commit.manifest_key, last.commit.manifest_version)
    if digest_of(body) != last.commit.manifest_digest:
        raise Damaged(f"the manifest of checkpoint {last.id} is not the one that was committed")
    return weights_digest(decode_manifest(body), objects.get)
