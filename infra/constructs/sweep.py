"""The sweep: every minute, whatever was lost, half done or due is found."""

from __future__ import annotations

from aws_cdk import Duration, aws_iam, aws_scheduler
from constructs import Construct

from infra.config import Config
from infra.constructs.acknowledge import acknowledge, acknowledge_wildcards
from infra.constructs.alarms import Alarms, per
from infra.constructs.function import Code, ControlFunction
from infra.constructs.pipeline import dead_letter_queue


class Sweep(Construct):
    """A function that the scheduler calls, with a dead-letter queue for either of their failures."""

    def __init__(self, scope: Construct, name: str, config: Config, *, code: Code, alarms: Alarms) -> None:
        super().__init__(scope, name)
        self.dead = dead_letter_queue(self, "Dead", alarms, "A sweep was given up on after every retry.")
        acknowledge(
            self.dead, "It is the dead-letter queue itself: of the schedule and of the function that it calls.", "SQS3"
        )
        self.worker = ControlFunction(
            self,
            "Worker",
            config,
            handler="handlers.sweep.handler",
            code=code,
            timeout=Duration.seconds(120),
            alarms=alarms,
            dead=self.dead,
        )
        self.schedule = self._schedule()
        alarms.raise_unless(
            self,
            "Silent",
            metric=self.worker.function.metric_invocations(period=per(5), statistic="Sum"),
            at_least=1,
            what="The sweep does not run: a lost event is not found any more.",
            anchor="sweep-silent",
        )

    def grant_scores(self) -> None:
        """Ask EC2 where it has Spot capacity, and what the zones are called that its answer speaks of by their ids."""
        actions = ["ec2:GetSpotPlacementScores", "ec2:DescribeAvailabilityZones"]
        asking = aws_iam.Policy(self, "Scores", statements=[aws_iam.PolicyStatement(actions=actions, resources=["*"])])
        asking.attach_to_role(self.worker.role)
        acknowledge_wildcards(asking, "EC2 knows no narrower resource than all for looking.", "*")

    def _schedule(self) -> aws_scheduler.CfnSchedule:
        caller = aws_iam.Role(self, "Caller", assumed_by=aws_iam.ServicePrincipal("scheduler.amazonaws.com"))
        function = self.worker.function.function_arn
        caller.add_to_policy(aws_iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function]))
        caller.add_to_policy(aws_iam.PolicyStatement(actions=["sqs:SendMessage"], resources=[self.dead.queue_arn]))
        schedule = aws_scheduler.CfnSchedule(
            self,
            "Schedule",
            schedule_expression="rate(1 minute)",
            flexible_time_window=aws_scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            description="Calls the sweep of Spotrelay.",
            target=aws_scheduler.CfnSchedule.TargetProperty(
                arn=function,
                role_arn=caller.role_arn,
                input="{}",
                dead_letter_config=aws_scheduler.CfnSchedule.DeadLetterConfigProperty(arn=self.dead.queue_arn),
                retry_policy=aws_scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=60,  # the next sweep does the same work
                    maximum_retry_attempts=2,
                ),
            ),
        )
        schedule.node.add_dependency(caller.node.find_child("DefaultPolicy"))
        return schedule
