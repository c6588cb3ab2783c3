"""A Lambda function of the control plane with its role, its log group and its alarms."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Duration, RemovalPolicy, aws_iam, aws_lambda, aws_logs, aws_sqs
from constructs import Construct

from infra.assets import MODELS, Bundle
from infra.config import Config
from infra.constructs.acknowledge import acknowledge
from infra.constructs.alarms import Alarms, per

RETENTION = {
    1: aws_logs.RetentionDays.ONE_DAY,
    3: aws_logs.RetentionDays.THREE_DAYS,
    5: aws_logs.RetentionDays.FIVE_DAYS,
    7: aws_logs.RetentionDays.ONE_WEEK,
    14: aws_logs.RetentionDays.TWO_WEEKS,
    30: aws_logs.RetentionDays.ONE_MONTH,
    60: aws_logs.RetentionDays.TWO_MONTHS,
    90: aws_logs.RetentionDays.THREE_MONTHS,
    180: aws_logs.RetentionDays.SIX_MONTHS,
    365: aws_logs.RetentionDays.ONE_YEAR,
}
ARCHITECTURES = {"arm64": aws_lambda.Architecture.ARM_64, "x86_64": aws_lambda.Architecture.X86_64}


@dataclass(frozen=True)
class Code:
    """What every function of the stack has in common."""

    bundle: Bundle
    environment: dict[str, str]


class ControlFunction(Construct):
    """One handler, under a role of its own that starts with the right to write its log and nothing else."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        config: Config,
        *,
        handler: str,
        code: Code,
        timeout: Duration,
        alarms: Alarms,
        memory_mib: int = 1024,
        dead: aws_sqs.IQueue | None = None,
    ) -> None:
        super().__init__(scope, name)
        log = aws_logs.LogGroup(
            self, "Log", retention=RETENTION[config.log_retention_days], removal_policy=RemovalPolicy.DESTROY
        )
        self.role = aws_iam.Role(self, "Role", assumed_by=aws_iam.ServicePrincipal("lambda.amazonaws.com"))
        self.role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="WriteLog", actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.log_group_arn]
            )
        )
        self.function = aws_lambda.Function(
            self,
            "Function",
            runtime=aws_lambda.Runtime(f"python{config.lambda_python}", aws_lambda.RuntimeFamily.PYTHON),
            architecture=ARCHITECTURES[config.lambda_architecture],
            handler=handler,
            code=aws_lambda.Code.from_asset(str(code.bundle.archive), asset_hash=code.bundle.digest),
            environment={
                **code.environment,
                "AWS_DATA_PATH": f"$LAMBDA_TASK_ROOT/{MODELS}",
                "POWERTOOLS_LOG_LEVEL": "INFO",
            },
            role=self.role,
            log_group=log,
            timeout=timeout,
            memory_size=memory_mib,
            dead_letter_queue=dead,
        )
        acknowledge(
            self.function,
            "The runtime is a context value; the default is the newest one whose exact byte code our tests execute.",
            "L1",
        )
        self._watch(alarms)

    def _watch(self, alarms: Alarms) -> None:
        alarms.raise_when(
            self,
            "Errors",
            metric=self.function.metric_errors(period=per(5), statistic="Sum"),
            at_least=3,
            what="A function of the control plane fails: the sweep or a redelivery repeats its work, later.",
            anchor="function-errors",
        )
        alarms.raise_when(
            self,
            "Throttles",
            metric=self.function.metric_throttles(period=per(5), statistic="Sum"),
            at_least=1,
            periods=2,
            what="Lambda refuses to start more of a function: events wait, replacements come late.",
            anchor="throttled",
        )
