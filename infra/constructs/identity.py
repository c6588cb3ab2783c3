"""Who an instance is: the one role that every machine runs under."""

from __future__ import annotations

from aws_cdk import Stack, aws_iam
from constructs import Construct

from infra.config import Config
from infra.constructs.acknowledge import acknowledge_wildcards


class InstanceIdentity(Construct):
    """The instance role and its profile, under a name that further regions can use too."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        self.role = aws_iam.Role(
            self,
            "Role",
            assumed_by=aws_iam.ServicePrincipal("ec2.amazonaws.com"),
            description="Machines of Spotrelay: read code and runs, add checkpoints and signs of life.",
        )
        self.profile = aws_iam.CfnInstanceProfile(
            self,
            "Profile",
            roles=[self.role.role_name],
            instance_profile_name=profile_name(config, Stack.of(self).region),
        )
        grant_secrets(self.role, config)

    def grant_agent(self, bucket_arn: str, key: str) -> None:
        """Download the one object that holds the agent."""
        self.role.add_to_policy(
            aws_iam.PolicyStatement(sid="FetchAgent", actions=["s3:GetObject"], resources=[f"{bucket_arn}/{key}"])
        )


def grant_secrets(role: aws_iam.Role, config: Config) -> None:
    """Read the secrets that runs may refer to, and no others."""
    stack, secrets = Stack.of(role), config.secrets
    names = [f"arn:{stack.partition}:ssm:{stack.region}:{stack.account}:parameter{path}" for path in secrets.ssm]
    for sid, actions, resources in (
        ("ReadParameters", ["ssm:GetParameter"], names),
        ("ReadSecrets", ["secretsmanager:GetSecretValue"], list(secrets.secretsmanager)),
        ("DecryptThem", ["kms:Decrypt"], list(secrets.keys)),
    ):
        if resources:
            role.add_to_policy(aws_iam.PolicyStatement(sid=sid, actions=actions, resources=resources))
            acknowledge_wildcards(role, "The names that the context gives, and no others.", *resources)


def profile_name(config: Config, home_region: str) -> str:
    """The instance profile's name: the same in every region, since IAM has none."""
    return f"{config.stack}-{home_region}-instance"
