"""What the deployed stack is made of, as its CloudFormation outputs tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.aws.places import Places, parse_places
from spotrelay.core.errors import Missing

DEFAULT_NAME = "Spotrelay"
USABLE = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_FAILED",
        "UPDATE_FAILED",
        "IMPORT_COMPLETE",
    }
)  # states in which the resources of the last good deployment are there


@dataclass(frozen=True)
class Stack:
    """The home stack."""

    name: str
    region: str
    table: str
    bucket: str
    bus: str
    switch: str  # SSM parameter
    places: Places
    outputs: Mapping[str, str] = field(default_factory=dict)  # all of them, by key

    def output(self, key: str) -> str:
        """One more output, such as RunsQueueUrl or SweepFunction.

        Raises:
            Missing: this deployment does not have it.
        """
        if key not in self.outputs:
            raise Missing(f"stack {self.name} has no output {key}: it is of another version; deploy it again")
        return self.outputs[key]


def find_stack(client: Any, name: str = DEFAULT_NAME) -> Stack:
    """The stack with this name in the region of this CloudFormation client.

    Raises:
        Missing: there is no such stack, or it never came up; the text says what to do.
        Unavailable: CloudFormation does not answer, or does not let us in.
    """
    region = client.meta.region_name
    absent = f"there is no stack {name} in {region}: deploy it, or name another one or another region"
    doing = f"looking for stack {name} in {region}"
    try:
        answer = client.describe_stacks(StackName=name)
    except ClientError as error:
        # CloudFormation answers a stack that is not there with its general ValidationError, and the
        # name passed the client's own check before it was sent.
        if error.response.get("Error", {}).get("Code") == "ValidationError":
            raise Missing(absent) from error
        raise failed_read(error, doing, absent) from error
    except FAILURES as error:
        raise failed_read(error, doing, absent) from error
    found = answer["Stacks"][0]
    if found["StackStatus"] not in USABLE:
        raise Missing(f"stack {name} in {region} is {found['StackStatus']}: wait for it, or deploy it again")
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    return stack_from(outputs, name, region)


def stack_from(outputs: Mapping[str, str], name: str, region: str) -> Stack:
    """The stack that these outputs describe.

    Raises:
        Missing: an output that every version has is not among them.
    """
    wanted = ("Table", "Bucket", "Bus", "Switch", "Places")
    missing = [key for key in wanted if key not in outputs]
    if missing:
        raise Missing(f"stack {name} has no output {', '.join(missing)}: is it a Spotrelay stack? Deploy it again")
    return Stack(
        name,
        region,
        table=outputs["Table"],
        bucket=outputs["Bucket"],
        bus=outputs["Bus"],
        switch=outputs["Switch"],
        places=parse_places(outputs["Places"]),
        outputs=dict(outputs),
    )
