"""Every place where the embedded cloud differs on purpose from what was deployed to it, in one list.

The stack itself is never changed: the template and the assets are those that go to AWS. What MiniStack drops or gets
wrong is set right after the deployment, and the clocks that a demo cannot wait for run faster by a stated factor.

    python -m spotrelay.localcloud.patches      prints the list as a Markdown table
"""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import dataclass
from typing import Any

SCALE_VARIABLE = "SPOTRELAY_TIME_SCALE"
SHORTEST_TICK_S = 1.0
SHORTEST_VISIBILITY_S = 10

_SCALE_LINE = re.compile(r"(?m)^(?P<before>time_scale=)(?P<value>'?[0-9][0-9.e-]*'?)$")


@dataclass(frozen=True)
class Patch:
    """One difference: its name, what it answers, and what is done."""

    name: str
    why: str
    what: str


class PatchFailed(Exception):
    """A patch found nothing to change: what it was written for has changed."""


def every_patch() -> tuple[Patch, ...]:
    """All differences, in the order in which they take effect."""
    return _AT_START + _AT_DEPLOY


def scale_user_data(template_data: dict[str, Any], time_scale: float) -> dict[str, Any]:
    """Launch template data whose resume script waits by `time_scale`.

    Raises:
        PatchFailed: the script has no line `time_scale=NUMBER`, or several.
    """
    encoded = template_data.get("UserData")
    if not encoded or time_scale == 1.0:
        return template_data
    script = base64.b64decode(encoded).decode()
    scaled, found = _SCALE_LINE.subn(rf"\g<before>{time_scale!r}", script)
    if found != 1:
        raise PatchFailed(f"the user data has {found} lines time_scale=NUMBER, not one: cannot scale its clock")
    return {**template_data, "UserData": base64.b64encode(scaled.encode()).decode()}


def tick_every_s(expression: str, time_scale: float) -> float:
    """Seconds between two calls of a schedule's target at the demo's pace.

    Raises:
        PatchFailed: the schedule is not of the form rate(N unit).
    """
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression.strip())
    if rate is None:
        raise PatchFailed(f"schedule expression {expression} is not rate(N unit): cannot pace it")
    seconds = int(rate[1]) * {"minute": 60, "hour": 3600, "day": 86400}[rate[2]]
    return max(SHORTEST_TICK_S, seconds * time_scale)


def visibility_s(deployed_s: int, time_scale: float) -> int:
    """Seconds after which a queue hands out an unacknowledged message again, at the demo's pace."""
    return min(deployed_s, max(SHORTEST_VISIBILITY_S, round(deployed_s * time_scale)))


def markdown() -> str:
    """The list as a Markdown table."""
    rows = [f"| {p.name} | {p.why} | {p.what} |" for p in every_patch()]
    return "\n".join(["| patch | why | what is done |", "| --- | --- | --- |", *rows])


_AT_START = (
    Patch(
        "EC2",
        "MiniStack launches without Spot, ClientToken, fleets' errors, capacity or user data",
        "EC2 actions on instances, fleets and Spot go to our own EC2; launch templates, subnets and the rest of the "
        "network stay with MiniStack",
    ),
    Patch(
        "EC2 events",
        "PutEvents refuses sources of AWS services, as AWS does",
        "our EC2 hands its `aws.ec2` events to the event bus in process, ids and times as it made them",
    ),
    Patch(
        "events across regions",
        "MiniStack drops an event whose target is a bus in another region",
        "it is put there, and keeps the region in which it happened",
    ),
    Patch(
        "replicas",
        "MiniStack gives a copy that S3 replicates a version id of its own, where S3 keeps the source's",
        "it gets the source's; copies are there at once, by the first rule that fits an object",
    ),
    Patch(
        "Lambda runtime",
        "MiniStack runs functions in its own interpreter with its own packages, so missing dependencies go unnoticed",
        "`python -m awslambdaric` against a Runtime API of ours; it sees the asset, the standard library, boto3 and "
        "the runtime client; the Python is this machine's, whatever `Runtime` says, and variables that begin with "
        "`/var/task` name the unpacked asset",
    ),
    Patch(
        "environments per function",
        "MiniStack starts one process for each concurrent call, without bound",
        "at most 4 warm environments for each function; further calls wait for one instead of being throttled",
    ),
    Patch(
        "root key",
        "MiniStack takes `test`, any 12 digits, and no signature at all for the account's root, unread",
        "unsigned requests and those keys are refused; the one administrator key is random and its signature checked",
    ),
    Patch(
        "administration paths",
        "MiniStack's own paths and its metadata service hand out state and credentials to anybody",
        "closed: `/_ministack`, `/_localstack`, `/latest/` and the like",
    ),
    Patch(
        "condition keys",
        "MiniStack knows none of `dynamodb:LeadingKeys`, `events:source` and `ec2:SourceInstanceARN`, so such "
        "statements never apply",
        "they are read from the request, or from the key that signed it, and given to its evaluator; in a transaction "
        "all its keys count at once",
    ),
    Patch(
        "batches to queues",
        "MiniStack asks for `sqs:SendMessageBatch`, an action that AWS does not have",
        "a batch needs the right to its single call, `sqs:SendMessage` and its like, as on AWS",
    ),
    Patch(
        "transport",
        "a bucket that demands TLS refuses everything over plain HTTP",
        "requests over loopback count as `aws:SecureTransport`",
    ),
    Patch(
        "ways in",
        "MiniStack refuses a template with `AWS::EC2::SecurityGroupIngress`",
        "the rule becomes one of its group's, and goes with the stack; no traffic is filtered either way",
    ),
    Patch("S3 checksums", "CRC32C and CRC64NVME byte by byte in Python: 2 s for 8 MiB", "computed by awscrt"),
)

_AT_DEPLOY = (
    Patch(
        "clock of the functions",
        "waiting times of minutes are too long for a demo",
        f"`{SCALE_VARIABLE}` in each function that has it is set to the demo's factor through Lambda's API",
    ),
    Patch(
        "clock of the instances",
        "the same",
        "the one line `time_scale=1` of the user data is given the factor when EC2 reads the launch "
        "template; EC2's own notice of two minutes is scaled by the same factor",
    ),
    Patch(
        "sweep schedule",
        "EventBridge Scheduler counts in minutes",
        "the schedule is disabled, and a ticker calls its target with its own input and its own role, every so many "
        "seconds as the factor says (one call after the other, never two at once)",
    ),
    Patch(
        "redelivery",
        "queues hand a failed message out again after minutes",
        f"visibility timeouts are scaled by the factor, down to {SHORTEST_VISIBILITY_S} s",
    ),
    Patch(
        "public parameters",
        "AWS publishes SSM parameters (AMI ids) that the emulated account does not have",
        "template parameters that name one get a placeholder AMI; instances here are processes and need none",
    ),
    Patch(
        "replication",
        "MiniStack drops `ReplicationConfiguration` of a template",
        "set through S3's API after the deployment",
    ),
    Patch(
        "reserved concurrency",
        "MiniStack drops `ReservedConcurrentExecutions` of a template",
        "set through Lambda's API after the deployment",
    ),
    Patch(
        "function dead-letter queue",
        "MiniStack drops `DeadLetterConfig` of a template",
        "set through Lambda's API after the deployment",
    ),
    Patch(
        "point-in-time recovery",
        "MiniStack drops it from tables of a template",
        "switched on through DynamoDB's API after the deployment",
    ),
)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
