"""The bucket: code bundles, checkpoints, manifests and logs of the runs."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, aws_iam, aws_s3
from constructs import Construct

from infra.config import Config
from infra.constructs.acknowledge import acknowledge, acknowledge_wildcards

CODE = "code/*"
RUNS = "runs/*"
CHECKPOINTS = ("runs/*/shards/*", "runs/*/parts/*", "runs/*/manifests/*")


class Vault(Construct):
    """A versioned bucket, kept when the stack goes. Two functions may delete checkpoints from it, and nobody else."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        logs = access_logs(self)
        self.bucket = aws_s3.Bucket(
            self,
            "Bucket",
            versioned=True,
            encryption=aws_s3.BucketEncryption.S3_MANAGED,
            block_public_access=aws_s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=aws_s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            server_access_logs_bucket=logs,
            server_access_logs_prefix="access/",
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[
                # We make no multipart uploads: these are older releases' or somebody else's.
                aws_s3.LifecycleRule(id="abandoned-uploads", abort_incomplete_multipart_upload_after=Duration.days(2)),
                # Nothing here is ever overwritten: an older version is the trace of somebody else's write.
                aws_s3.LifecycleRule(
                    id="old-versions-of-code", prefix="code/", noncurrent_version_expiration=Duration.days(90)
                ),
            ],
        )
        self._only_add()

    def _only_add(self) -> None:
        """Nobody overwrites what a manifest may name, whatever rights they have otherwise.

        Source:
            Amazon S3 User Guide, "Enforce conditional writes": parts of an upload are exempt, its completion is not.
        """
        self.bucket.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="OnlyAddToRuns",
                effect=aws_iam.Effect.DENY,
                principals=[aws_iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self.bucket.arn_for_objects(RUNS)],
                conditions={"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
            )
        )

    def grant_control_plane(self, role: aws_iam.Role) -> None:
        """List versions and read checkpoints, to compare them with their manifests."""
        self._grant_sight(role, ["s3:ListBucket", "s3:ListBucketVersions"])
        self._grant(role, "ReadRuns", ["s3:GetObject", "s3:GetObjectVersion"], RUNS)

    def grant_collection(self, role: aws_iam.Role) -> None:
        """Delete versions of checkpoints by name: no marker, no log, no code, and nothing that is not listed first."""
        self._grant(role, "DeleteCheckpoints", ["s3:DeleteObjectVersion"], *CHECKPOINTS)

    def grant_attempts(self, role: aws_iam.Role) -> None:
        """Read code and checkpoints, add to the checkpoints and logs; never delete."""
        self._grant_sight(role, ["s3:ListBucket"])
        self._grant(role, "ReadCodeAndRuns", ["s3:GetObject", "s3:GetObjectVersion"], CODE, RUNS)
        self._grant(role, "AddToRuns", ["s3:PutObject", "s3:AbortMultipartUpload"], RUNS)

    def _grant_sight(self, role: aws_iam.Role, actions: list[str]) -> None:
        """Without ListBucket S3 answers 403 where an object is missing: no verdict could be drawn from that."""
        role.add_to_policy(
            aws_iam.PolicyStatement(sid="SeeTheBucket", actions=actions, resources=[self.bucket.bucket_arn])
        )

    def _grant(self, role: aws_iam.Role, sid: str, actions: list[str], *prefixes: str) -> None:
        resources = [self.bucket.arn_for_objects(prefix) for prefix in prefixes]
        role.add_to_policy(aws_iam.PolicyStatement(sid=sid, actions=actions, resources=resources))
        acknowledge_wildcards(
            role, "One prefix of one bucket: keys of runs and bundles cannot be listed in advance.", *resources
        )


def access_logs(scope: Construct) -> aws_s3.Bucket:
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
