"""A bucket as all of ours are: private, versioned, encrypted, logged, and kept when the stack goes."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, aws_s3
from constructs import Construct

from infra.constructs.acknowledge import acknowledge

ABANDONED = aws_s3.LifecycleRule(id="abandoned-uploads", abort_incomplete_multipart_upload_after=Duration.days(2))
"""We make no multipart uploads: these are older releases' or somebody else's."""


def guarded_bucket(scope: Construct, *lifecycle: aws_s3.LifecycleRule, name: str | None = None) -> aws_s3.Bucket:
    """The bucket of a construct, and another one for its access logs.

    Args:
        lifecycle: rules besides the one for abandoned uploads.
        name: None for one that CloudFormation makes up.
    """
    logs = _access_logs(scope)
    return aws_s3.Bucket(
        scope,
        "Bucket",
        bucket_name=name,
        versioned=True,
        encryption=aws_s3.BucketEncryption.S3_MANAGED,
        block_public_access=aws_s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=aws_s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        server_access_logs_bucket=logs,
        server_access_logs_prefix="access/",
        removal_policy=RemovalPolicy.RETAIN,
        lifecycle_rules=[ABANDONED, *lifecycle],
    )


def _access_logs(scope: Construct) -> aws_s3.Bucket:
    """A bucket for the access logs of another one in the same region."""
    logs = aws_s3.Bucket(
        scope,
        "AccessLogs",
        encryption=aws_s3.BucketEncryption.S3_MANAGED,
        block_public_access=aws_s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=aws_s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        removal_policy=RemovalPolicy.RETAIN,
        lifecycle_rules=[aws_s3.LifecycleRule(id="old-logs", expiration=Duration.days(90))],
    )
    acknowledge(logs, "This bucket receives the access logs; logging it into itself would never end.", "S1")
    return logs
