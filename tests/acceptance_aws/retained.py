"""What CloudFormation keeps when this test's stack goes, and its deletion. Never called for a protected stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from tests.acceptance_aws.failure import AcceptanceFailed

BUCKET = "AWS::S3::Bucket"
TABLE = "AWS::DynamoDB::Table"
ABSENT = frozenset({"NoSuchBucket", "404", "ResourceNotFoundException"})
BATCH = 1000  # objects that one DeleteObjects takes
TRIES = 12  # access logs arrive late, and a table that is being made cannot be deleted yet
PAUSE_S = 10.0


@dataclass(frozen=True, order=True)
class Kept:
    """One resource that outlives the stack."""

    kind: str  # its CloudFormation type
    name: str  # its physical id


def kept_by(cloudformation: Any, stack: str) -> list[Kept]:
    """Buckets and tables of the stack that have come into being. To be asked before the stack is destroyed."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    return [
        Kept(resource["ResourceType"], resource["PhysicalResourceId"])
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] in (BUCKET, TABLE) and resource.get("PhysicalResourceId")
    ]


def delete_kept(kept: Kept, clients: Callable[[str], Any], sleep: Callable[[float], None]) -> None:
    """Empty and delete it; harmless when it is gone."""
    delete = {BUCKET: _delete_bucket, TABLE: _delete_table}[kept.kind]
    client = clients("s3" if kept.kind == BUCKET else "dynamodb")
    for turn in range(TRIES):
        try:
            delete(client, kept.name)
            return
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ABSENT:
                return
            if code not in ("BucketNotEmpty", "ResourceInUseException") or turn == TRIES - 1:
                raise
        sleep(PAUSE_S)


def _delete_bucket(s3: Any, bucket: str) -> None:
    empty(s3, bucket)
    s3.delete_bucket(Bucket=bucket)


def empty(s3: Any, bucket: str) -> None:
    """Delete every version and every delete marker, and give up every upload under way."""
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in page.get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    while objects := _some(s3, bucket):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", [])[:1]:
            raise AcceptanceFailed(f"{error.get('Key')} was not deleted: {error.get('Message')}")


def _some(s3: Any, bucket: str) -> list[dict[str, str]]:
    """Some of the versions and delete markers that are there; none when it is empty."""
    page = s3.list_object_versions(Bucket=bucket, MaxKeys=BATCH)
    found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
    return [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]


def _delete_table(dynamodb: Any, table: str) -> None:
    if dynamodb.describe_table(TableName=table)["Table"]["TableStatus"] == "DELETING":
        return
    dynamodb.delete_table(TableName=table)
