"""The kill switch: one parameter that stops every launch."""

from __future__ import annotations

from aws_cdk import aws_iam, aws_ssm
from constructs import Construct

from infra.config import Config


class KillSwitch(Construct):
    """`on` lets launches happen; `off` stops every one of them, while running machines go on."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        self.name = f"/{config.stack}/launches"
        self.parameter = aws_ssm.StringParameter(
            self,
            "Parameter",
            parameter_name=self.name,
            string_value="on",
            allowed_pattern="^(on|off)$",
            description="off: Spotrelay launches nothing; machines that run go on. on: normal work.",
        )

    def grant_read(self, role: aws_iam.Role) -> None:
        """Look whether launches are allowed."""
        role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="KillSwitch", actions=["ssm:GetParameter"], resources=[self.parameter.parameter_arn]
            )
        )
