"""S3, DynamoDB, EventBridge and secrets over HTTP for these tests: MiniStack on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from tests.instance.machine import eventually

TABLE = "spotrelay-test"
BUCKET = "spotrelay-test-bucket"
BUS = "spotrelay-test-bus"
AGENTS = "spotrelay-test-assets"


class Cloud:
    """Clients of the emulator as its administrator."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def create(self) -> None:
        """The resources that the stack would have."""
        s3, dynamodb = self.client("s3"), self.client("dynamodb")
        for bucket in (BUCKET, AGENTS):
            s3.create_bucket(Bucket=bucket)
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        text = [{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk", "due_shard", "listed", "created_at")]
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[*text, {"AttributeName": "due_at", "AttributeType": "N"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            GlobalSecondaryIndexes=[_index("due", "due_shard", "due_at"), _index("runs", "listed", "created_at")],
        )
        self.client("events").create_event_bus(Name=BUS)

    def item(self, pk: str, sk: str) -> dict[str, Any] | None:
        """One item of the table as DynamoDB has it."""
        answer = self.client("dynamodb").get_item(TableName=TABLE, Key={"pk": {"S": pk}, "sk": {"S": sk}})
        found: dict[str, Any] | None = answer.get("Item")
        return found

    def log(self, run_id: str, generation: int = 1) -> str:
        """All log chunks of an attempt, in order."""
        s3 = self.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"runs/{run_id}/logs/{generation:06d}/").get("Contents", [])
        keys = sorted(entry["Key"] for entry in listed)
        return b"".join(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys).decode()


def _index(name: str, hash_key: str, range_key: str) -> dict[str, Any]:
    keys = [{"AttributeName": hash_key, "KeyType": "HASH"}, {"AttributeName": range_key, "KeyType": "RANGE"}]
    return {"IndexName": name, "KeySchema": keys, "Projection": {"ProjectionType": "KEYS_ONLY"}}


@contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """The emulator as a process of its own, on loopback only; its endpoint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": port,
        "MINISTACK_HOST": "127.0.0.1",
        "TMPDIR": str(folder),
        "LOG_LEVEL": "WARNING",
    }
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(endpoint), "MiniStack answered", 60)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
