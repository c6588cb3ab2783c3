"""What the functions need around them on an emulated AWS, made by hand: no deployment, no more than this."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.session import get_session

from handlers import settings
from infra.assets import MODELS
from spotrelay.aws.clients import Clients
from spotrelay.aws.layout import table_definition
from spotrelay.aws.live_store import DynamoLiveStore
from spotrelay.aws.object_store import S3ObjectStore
from spotrelay.aws.run_store import DynamoRunStore
from spotrelay.core.live import Heartbeat, Phase
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec
from tests.handlers.checkpoints import put_checkpoint

SPEC = Spec(command=("python", "train.py"), instance_types=("g5.xlarge",))
IDLE = "#!/bin/bash\nexit 0\n"


@dataclass
class Stack:
    """What `cdk deploy` would have made, as far as the functions touch it."""

    environment: dict[str, str]
    clients: Clients
    store: DynamoRunStore
    live: DynamoLiveStore
    objects: S3ObjectStore

    def submit(self, run_id: str) -> None:
        self.store.create(Run(run_id, SPEC, datetime.now(UTC)))

    def machines(self) -> list[str]:
        found = self.clients.client("ec2").describe_instances()
        return [i["InstanceId"] for reservation in found["Reservations"] for i in reservation["Instances"]]

    def train(self, run_id: str) -> str:
        """The newest attempt takes the lease, commits a checkpoint; returns its machine."""
        attempt = self.store.load(run_id).current
        assert attempt is not None and attempt.instance_id is not None
        self.live.take_lease(run_id, attempt.generation, attempt.instance_id)
        self.live.beat(Heartbeat(run_id, attempt.generation, 1, Phase.TRAINING, step=10, first_step=True))
        commit, _ = put_checkpoint(self.objects, run_id, attempt.generation)
        self.live.commit(commit, attempt.instance_id)
        return attempt.instance_id


def make_stack(access: dict[str, str], asset: Path, runtime: Path) -> Stack:
    """Table, bucket, bus, queue, switch, subnet and launch template.

    Args:
        access: environment with which an SDK finds the emulated AWS; this process must have it too.
    """
    region = access["AWS_REGION"]
    clients = Clients(region, get_session())
    names = {name: f"{name}-{secrets.token_hex(4)}" for name in ("table", "bucket", "bus", "switch")}
    clients.client("dynamodb").create_table(**table_definition(names["table"]))
    clients.client("s3").create_bucket(Bucket=names["bucket"])
    clients.client("s3").put_bucket_versioning(Bucket=names["bucket"], VersioningConfiguration={"Status": "Enabled"})
    clients.client("events").create_event_bus(Name=names["bus"])
    clients.client("ssm").put_parameter(Name=names["switch"], Value="on", Type="String")
    queue = clients.client("sqs").create_queue(QueueName=f"runs-{secrets.token_hex(4)}")["QueueUrl"]
    environment = {
        **access,
        "PYTHONPATH": str(runtime),
        "AWS_DATA_PATH": str(asset / MODELS),
        settings.TABLE: names["table"],
        settings.BUCKET: names["bucket"],
        settings.BUS: names["bus"],
        settings.STACK: "Spotrelay",
        settings.HOME_REGION: region,
        settings.PLACES: json.dumps({region: _place(clients.client("ec2"), region)}),
        settings.SWITCH: names["switch"],
        settings.RUNS_QUEUE: queue,
    }
    return Stack(
        environment,
        clients,
        DynamoRunStore(clients.client("dynamodb"), names["table"]),
        DynamoLiveStore(clients.client("dynamodb"), names["table"]),
        S3ObjectStore(clients.client("s3"), names["bucket"]),
    )


def _place(ec2: Any, region: str) -> dict[str, Any]:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zone = f"{region}a"
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
    template = ec2.create_launch_template(
        LaunchTemplateName=f"t-{secrets.token_hex(4)}",
        LaunchTemplateData={"ImageId": "ami-12345678", "UserData": base64.b64encode(IDLE.encode()).decode()},
    )["LaunchTemplate"]["LaunchTemplateId"]
    return {"launch_template": template, "version": "1", "subnets": {zone: subnet}}
