"""Hosts of one's own: the function that reaches them, and the role that their machines get sessions of."""

from __future__ import annotations

from aws_cdk import Duration, Stack, aws_iam
from constructs import Construct

from handlers import settings
from infra.config import Config
from infra.constructs.acknowledge import acknowledge_wildcards
from infra.constructs.alarms import Alarms
from infra.constructs.function import Code, ControlFunction
from infra.constructs.identity import grant_secrets

KEYS = "spotrelay-hosts"  # what the names of private keys begin with: no program of a run may read there


class Hosts(Construct):
    """One function with an asset of its own. Nobody but the control plane's functions may call it."""

    def __init__(self, scope: Construct, name: str, config: Config, *, code: Code, alarms: Alarms) -> None:
        super().__init__(scope, name)
        self.worker = ControlFunction(
            self,
            "Worker",
            config,
            handler="handlers.hosts.handler",
            code=code,
            timeout=Duration.seconds(90),  # the agent's archive over a slow line
            alarms=alarms,
        )
        self.machine_role = aws_iam.Role(
            self,
            "MachineRole",
            assumed_by=aws_iam.ArnPrincipal(self.worker.role.role_arn),
            description="Machines on hosts of one's own, each session narrowed to its run.",
        )
        grant_secrets(self.machine_role, config)
        self._allow("HandOut", "sts:AssumeRole", self.machine_role.role_arn)
        self._grant_keys()
        self.worker.function.add_environment(settings.HOST_ROLE, self.machine_role.role_arn)

    def grant_agent(self, bucket: str, bucket_arn: str, key: str, sha256: str) -> None:
        """Read the one object that holds the agent, to bring it to hosts."""
        for name, value in (
            (settings.AGENT_BUCKET, bucket),
            (settings.AGENT_KEY, key),
            (settings.AGENT_SHA256, sha256),
        ):
            self.worker.function.add_environment(name, value)
        self._allow("FetchAgent", "s3:GetObject", f"{bucket_arn}/{key}")

    def let_call(self, caller: ControlFunction) -> None:
        """Let another function reach hosts through this one."""
        caller.function.add_environment(settings.HOSTS_FUNCTION, self.worker.function.function_name)
        caller.role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="ReachHosts", actions=["lambda:InvokeFunction"], resources=[self.worker.function.function_arn]
            )
        )

    def _grant_keys(self) -> None:
        stack = Stack.of(self)
        where = f"{stack.region}:{stack.account}"
        parameters = f"arn:{stack.partition}:ssm:{where}:parameter/{KEYS}/*"
        secrets = f"arn:{stack.partition}:secretsmanager:{where}:secret:{KEYS}/*"
        self._allow("ReadKeyParameters", "ssm:GetParameter", parameters)
        self._allow("ReadKeySecrets", "secretsmanager:GetSecretValue", secrets)
        acknowledge_wildcards(
            self.worker.role, "One prefix: hosts are registered after the stack was deployed.", parameters, secrets
        )

    def _allow(self, sid: str, action: str, resource: str) -> None:
        self.worker.role.add_to_policy(aws_iam.PolicyStatement(sid=sid, actions=[action], resources=[resource]))
