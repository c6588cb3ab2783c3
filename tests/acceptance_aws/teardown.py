"""The way back to nothing: every step is tried, whatever became of the one before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from spotrelay.core.errors import Missing
from tests.acceptance_aws.cdk import Deployment
from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.interruption import Interruption
from tests.acceptance_aws.machines import tagged
from tests.acceptance_aws.retained import BUCKET, Kept, delete_kept, kept_by
from tests.acceptance_aws.watch import Clock

NOT_OVER = ("pending", "running", "stopping", "stopped")
NOT_GONE = (*NOT_OVER, "shutting-down")
LOOKS = 60  # for machines, and for the stack, to be gone
LOOK_S = 10.0


@dataclass
class Teardown:
    """Removes a stack of this test and everything around it."""

    stack: str
    clients: Callable[[str], Any]
    deployment: Deployment
    interruption: Interruption
    clock: Clock
    say: Callable[[str], None]
    problems: list[str] = field(default_factory=list)
    _kept: set[Kept] = field(default_factory=set)
    _stack_id: str = ""  # CloudFormation answers by it when the stack is gone

    def run(self) -> list[str]:
        """Do it; what could not be done, in words, with what to do by hand."""
        for name, step in (
            ("stop every launch", self._stop_launches),
            ("end every machine", self._end_machines),
            ("remove the experiment, its template and its role", self.interruption.remove),
            ("see what the stack keeps", self._see_kept),
            ("destroy the stack", self._destroy),
            ("delete the stack", self._delete_stack),  # what is left of it
            ("see what the stack kept", self._see_kept),  # that came into being meanwhile
            ("end every machine", self._end_machines),  # that a launch under way has made meanwhile
            ("delete the buckets and the table", self._delete_kept),
        ):
            self._try(name, step)
        self._check()
        return self.problems

    def _try(self, name: str, step: Callable[[], None]) -> None:
        self.say(f"teardown: {name}")
        try:
            step()
        except Exception as error:  # noqa: BLE001  # whatever it is, the next step matters as much
            self.problems.append(f"could not {name}: {error}")
            self.say(self.problems[-1])

    def _stop_launches(self) -> None:
        name = self._outputs().get("Switch")
        if name:
            self.clients("ssm").put_parameter(Name=name, Value="off", Type="String", Overwrite=True)

    def _end_machines(self) -> None:
        """A network cannot go while a machine is in it, so wait until they are gone."""
        ec2 = self.clients("ec2")
        for _ in range(LOOKS):
            found = self._machines(ec2, *NOT_GONE)
            alive = [i["InstanceId"] for i in found if i["State"]["Name"] in NOT_OVER]
            if alive:
                ec2.terminate_instances(InstanceIds=alive)
            if not found:
                return
            self.clock.sleep(LOOK_S)
        raise AcceptanceFailed("machines do not end; look at EC2 for the tag spotrelay:managed = " + self.stack)

    def _machines(self, ec2: Any, *states: str) -> list[dict[str, Any]]:
        pages = ec2.get_paginator("describe_instances").paginate(Filters=tagged(self.stack, *states))
        return [i for page in pages for reservation in page["Reservations"] for i in reservation["Instances"]]

    def _see_kept(self) -> None:
        found = self._described()
        self._stack_id = found["StackId"] if found else self._stack_id
        if self._stack_id:
            self._kept |= set(kept_by(self.clients("cloudformation"), self._stack_id))

    def _destroy(self) -> None:
        if self._described() is not None:
            self.deployment.destroy()

    def _delete_stack(self) -> None:
        """For a stack that the command line could not destroy."""
        cloudformation = self.clients("cloudformation")
        for _ in range(LOOKS):
            found = self._described()
            if found is None:
                return
            if found["StackStatus"] != "DELETE_IN_PROGRESS":
                cloudformation.delete_stack(StackName=self.stack)
            self.clock.sleep(LOOK_S)
        raise AcceptanceFailed(f"stack {self.stack} does not go: see its events in CloudFormation")

    def _delete_kept(self) -> None:
        refused = []
        for kept in sorted(self._kept):
            try:
                delete_kept(kept, self.clients, self.clock.sleep)
            except (ClientError, AcceptanceFailed) as error:
                refused.append(f"{kept.name}: {error}")
        if refused:
            raise AcceptanceFailed("; ".join(refused))

    def _check(self) -> None:
        """Nothing of it is there, by AWS's own word."""
        self._try("look for what is left", self._look_for_rest)

    def _look_for_rest(self) -> None:
        left = [i["InstanceId"] for i in self._machines(self.clients("ec2"), *NOT_OVER)]
        if self._described() is not None:
            left.append(f"stack {self.stack}")
        left += [kept.name for kept in sorted(self._kept) if self._is_there(kept)]
        if left:
            raise AcceptanceFailed(f"still there: {', '.join(left)}; try again with --teardown {self.stack}")

    def _is_there(self, kept: Kept) -> bool:
        try:
            if kept.kind == BUCKET:
                self.clients("s3").head_bucket(Bucket=kept.name)
                return True
            table = self.clients("dynamodb").describe_table(TableName=kept.name)["Table"]
            return str(table["TableStatus"]) != "DELETING"
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchBucket", "ResourceNotFoundException"):
                return False
            raise

    def _outputs(self) -> dict[str, str]:
        found = self._described()
        return {o["OutputKey"]: o["OutputValue"] for o in (found or {}).get("Outputs", [])}

    def _described(self) -> dict[str, Any] | None:
        """The stack as CloudFormation has it; None when there is none."""
        try:
            found: dict[str, Any] = self.clients("cloudformation").describe_stacks(StackName=self.stack)["Stacks"][0]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":  # how CloudFormation says that there is none
                return None
            raise
        except (IndexError, Missing):
            return None
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found
