"""The bucket: code bundles, checkpoints, manifests and logs of the runs."""

from __future__ import annotations

from aws_cdk import Duration, aws_iam, aws_s3
from constructs import Construct

from infra.config import Config
from infra.constructs.acknowledge import acknowledge_wildcards
from infra.constructs.guarded import guarded_bucket

CODE = "code/*"
RUNS = "runs/*"
CHECKPOINTS = ("runs/*/shards/*", "runs/*/parts/*", "runs/*/manifests/*")


class Vault(Construct):
    """A versioned bucket, kept when the stack goes. Two functions may delete checkpoints from it, and nobody else."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        # Nothing here is ever overwritten: an older version is the trace of somebody else's write.
        old = aws_s3.LifecycleRule(
            id="old-versions-of-code", prefix="code/", noncurrent_version_expiration=Duration.days(90)
        )
        self.bucket = guarded_bucket(self, old)
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
