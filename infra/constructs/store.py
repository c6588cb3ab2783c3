"""The table: runs, leases, commits, heartbeats, and the index from instance to run."""

from __future__ import annotations

from aws_cdk import RemovalPolicy, aws_dynamodb, aws_iam
from constructs import Construct

from infra.config import Config

DUE = "due"
RUNS = "runs"
READ = ["dynamodb:GetItem", "dynamodb:Query"]
READ_MANY = ["dynamodb:BatchGetItem"]  # of machines and their runs, in the sweep
WRITE = ["dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem"]


class Store(Construct):
    """One table on demand, kept when the stack goes, and who may do what with it. Nobody scans."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        self.table = aws_dynamodb.Table(
            self,
            "Table",
            partition_key=_key("pk"),
            sort_key=_key("sk"),
            billing_mode=aws_dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=aws_dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=config.protected,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self._index(
            DUE, _key("due_shard"), aws_dynamodb.Attribute(name="due_at", type=aws_dynamodb.AttributeType.NUMBER)
        )
        self._index(RUNS, _key("listed"), _key("created_at"))

    def grant_control_plane(self, role: aws_iam.Role) -> None:
        """Read and write every row, and ask what is due."""
        role.add_to_policy(
            aws_iam.PolicyStatement(sid="Rows", actions=[*READ, *READ_MANY, *WRITE], resources=[self.table.table_arn])
        )
        role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="WhatIsDue", actions=["dynamodb:Query"], resources=[f"{self.table.table_arn}/index/{DUE}"]
            )
        )

    def grant_collection(self, role: aws_iam.Role) -> None:
        """Forget checkpoints of which nothing is left: rows of runs and of what lives beside them."""
        role.add_to_policy(self._by_key("ForgetCheckpoints", ["dynamodb:DeleteItem"], ["RUN#*", "LIVE#*"]))

    def grant_attempts(self, role: aws_iam.Role) -> None:
        """Read runs and what lives beside them; write only the latter. No key named means no access."""
        role.add_to_policy(self._by_key("ReadRuns", READ, ["RUN#*", "LIVE#*"]))
        role.add_to_policy(self._by_key("WriteLiveItems", WRITE, ["LIVE#*"]))

    def grant_sight(self, role: aws_iam.Role) -> None:
        """Read runs, which machine belongs to which, and the hosts of one's own; write nothing."""
        keys = ["RUN#*", "LIVE#*", "INSTANCE#*", "HOSTS"]
        role.add_to_policy(self._by_key("ReadRows", READ, keys))

    def _by_key(self, sid: str, actions: list[str], keys: list[str]) -> aws_iam.PolicyStatement:
        return aws_iam.PolicyStatement(
            sid=sid,
            actions=actions,
            resources=[self.table.table_arn],
            conditions={
                "ForAllValues:StringLike": {"dynamodb:LeadingKeys": keys},
                "Null": {"dynamodb:LeadingKeys": "false"},  # ForAllValues alone allows where the key is absent
            },
        )

    def _index(self, name: str, partition: aws_dynamodb.Attribute, sort: aws_dynamodb.Attribute) -> None:
        self.table.add_global_secondary_index(
            index_name=name,
            partition_key=partition,
            sort_key=sort,
            projection_type=aws_dynamodb.ProjectionType.KEYS_ONLY,
        )


def _key(name: str) -> aws_dynamodb.Attribute:
    return aws_dynamodb.Attribute(name=name, type=aws_dynamodb.AttributeType.STRING)
