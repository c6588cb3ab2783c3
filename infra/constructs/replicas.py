"""Copies of the bucket in further regions: the bucket there, and what home has to do with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from aws_cdk import Duration, Stack, aws_iam, aws_s3
from constructs import Construct

from infra.config import Config
from infra.constructs.acknowledge import acknowledge_wildcards
from infra.constructs.guarded import guarded_bucket
from infra.constructs.vault import CHECKPOINTS, RUNS, Vault

HIDDEN_DAYS = 30  # that a version stays which was hidden at home: nobody reads it, and it is nobody's only copy


class ReplicaBucket(Construct):
    """A bucket that S3 alone writes to, as it replicates; guarded and kept like the one at home."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        hidden = aws_s3.LifecycleRule(
            id="hidden-at-home",
            noncurrent_version_expiration=Duration.days(HIDDEN_DAYS),
            expired_object_delete_marker=True,
        )
        self.bucket = guarded_bucket(self, hidden, name=replica_name(config, Stack.of(self).region))
        self._only_replication(role_arn(self, config))

    def _only_replication(self, role: str) -> None:
        """Nobody puts anything here, whatever rights they have otherwise."""
        self.bucket.add_to_resource_policy(
            aws_iam.PolicyStatement(
                sid="OnlyReplication",
                effect=aws_iam.Effect.DENY,
                principals=[aws_iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self.bucket.arn_for_objects("*")],
                conditions={"ArnNotEquals": {"aws:PrincipalArn": role}},
            )
        )


class Replication(Construct):
    """Has S3 copy what runs write into the replicas, and says who may do what with those."""

    def __init__(self, scope: Construct, name: str, config: Config, vault: Vault) -> None:
        super().__init__(scope, name)
        self._buckets: Mapping[str, str] = replicas(config)
        self._role = self._replicator(config, vault)
        home = vault.bucket.node.default_child
        assert isinstance(home, aws_s3.CfnBucket)
        home.replication_configuration = aws_s3.CfnBucket.ReplicationConfigurationProperty(
            role=self._role.role_arn,
            rules=[self._rule(number, region) for number, region in enumerate(self._buckets, start=1)],
        )

    def grant_control_plane(self, role: aws_iam.Role) -> None:
        """List versions and read checkpoints, to compare them with their manifests."""
        sight = ["s3:ListBucket", "s3:ListBucketVersions"]
        buckets = [self._arn(region) for region in self._buckets]
        role.add_to_policy(aws_iam.PolicyStatement(sid="SeeReplicas", actions=sight, resources=buckets))
        self._grant(role, "ReadReplicas", ["s3:GetObject", "s3:GetObjectVersion"], RUNS)

    def grant_collection(self, role: aws_iam.Role) -> None:
        """Delete versions of checkpoints by name: S3 does not replicate that kind of deletion."""
        self._grant(role, "DeleteReplicas", ["s3:DeleteObjectVersion"], *CHECKPOINTS)

    def grant_machines(self, role: aws_iam.Role) -> None:
        """Read checkpoints, each machine in the replica of its own region and in no other."""
        stack = Stack.of(self)
        for region in self._buckets:
            inside = f"arn:{stack.partition}:ec2:{region}:{stack.account}:instance/*"
            objects = f"{self._arn(region)}/{RUNS}"
            role.add_to_policy(
                aws_iam.PolicyStatement(
                    sid=f"ReadNearby{''.join(part.capitalize() for part in region.split('-'))}",
                    actions=["s3:GetObject", "s3:GetObjectVersion"],
                    resources=[objects],
                    conditions={"ArnLike": {"ec2:SourceInstanceARN": inside}},
                )
            )
            acknowledge_wildcards(role, "One prefix of one bucket: keys of runs cannot be listed in advance.", objects)

    def _replicator(self, config: Config, vault: Vault) -> aws_iam.Role:
        role = aws_iam.Role(
            self,
            "Role",
            role_name=role_name(config),
            assumed_by=aws_iam.ServicePrincipal("s3.amazonaws.com"),
            description="S3 copies what runs of Spotrelay write into other regions.",
        )
        sources, home = [vault.bucket.arn_for_objects(RUNS)], [vault.bucket.bucket_arn]
        for sid, actions, resources in (
            ("SeeHome", ["s3:GetReplicationConfiguration", "s3:ListBucket"], home),
            ("ReadHome", ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl"], sources),
        ):
            role.add_to_policy(aws_iam.PolicyStatement(sid=sid, actions=actions, resources=resources))
        acknowledge_wildcards(role, "What runs write, and nothing else of the bucket.", *sources)
        self._grant(role, "WriteReplicas", ["s3:ReplicateObject", "s3:ReplicateDelete"], RUNS)
        return role

    def _rule(self, number: int, region: str) -> aws_s3.CfnBucket.ReplicationRuleProperty:
        kind = aws_s3.CfnBucket
        return kind.ReplicationRuleProperty(
            id=region,
            status="Enabled",
            priority=number,
            filter=kind.ReplicationRuleFilterProperty(prefix=RUNS.removesuffix("*")),
            delete_marker_replication=kind.DeleteMarkerReplicationProperty(status="Enabled"),
            destination=kind.ReplicationDestinationProperty(bucket=self._arn(region)),
        )

    def _grant(self, role: aws_iam.Role, sid: str, actions: list[str], *prefixes: str) -> None:
        resources = [f"{self._arn(region)}/{prefix}" for region in self._buckets for prefix in prefixes]
        role.add_to_policy(aws_iam.PolicyStatement(sid=sid, actions=actions, resources=resources))
        acknowledge_wildcards(role, "What runs write: their keys cannot be listed in advance.", *resources)

    def _arn(self, region: str) -> str:
        return f"arn:{Stack.of(self).partition}:s3:::{self._buckets[region]}"


def replicas(config: Config) -> dict[str, str]:
    """Region to bucket of each replica that home knows of: those beside which machines can be launched."""
    return {name: replica_name(config, name) for name, each in config.regions.items() if each.replica and each.place}


def replica_name(config: Config, region: str) -> str:
    """A bucket's name that both stacks can tell: as unique in the world as the home bucket's own."""
    assert config.home is not None, "a replica needs a home; Config sees to that"
    digest = hashlib.sha256(config.home.bucket.encode()).hexdigest()[:16]
    return f"spotrelay-replica-{region}-{digest}"


def role_name(config: Config) -> str:
    """The name of the role that S3 replicates with."""
    return f"{config.stack}-{config.home_region}-replication"


def role_arn(scope: Construct, config: Config) -> str:
    """The ARN of that role, told from a region in which it is not made."""
    stack = Stack.of(scope)
    return f"arn:{stack.partition}:iam::{stack.account}:role/{role_name(config)}"
