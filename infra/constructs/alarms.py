"""Alarms that say what happened and where the remedy is written."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy, aws_cloudwatch, aws_cloudwatch_actions, aws_iam, aws_sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.config import Config


class Alarms(Construct):
    """The one place that alarms go to: a topic of its own, the user's topic, or nowhere but the console."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        self._runbook = config.runbook
        self._topic = self._make_topic(config)

    def raise_when(
        self,
        scope: Construct,
        name: str,
        *,
        metric: aws_cloudwatch.IMetric,
        at_least: float,
        what: str,
        anchor: str,
        periods: int = 1,
    ) -> None:
        """Alarm while `metric` is at or above a bound; no data is good news."""
        self._alarm(
            scope,
            name,
            metric=metric,
            threshold=at_least,
            comparison_operator=aws_cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=aws_cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description=self._text(what, anchor),
            evaluation_periods=periods,
        )

    def raise_unless(
        self, scope: Construct, name: str, *, metric: aws_cloudwatch.IMetric, at_least: float, what: str, anchor: str
    ) -> None:
        """Alarm while `metric` stays below a bound; no data is bad news."""
        self._alarm(
            scope,
            name,
            metric=metric,
            threshold=at_least,
            comparison_operator=aws_cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            treat_missing_data=aws_cloudwatch.TreatMissingData.BREACHING,
            alarm_description=self._text(what, anchor),
            evaluation_periods=1,
        )

    def _alarm(
        self,
        scope: Construct,
        name: str,
        *,
        metric: aws_cloudwatch.IMetric,
        threshold: float,
        comparison_operator: aws_cloudwatch.ComparisonOperator,
        treat_missing_data: aws_cloudwatch.TreatMissingData,
        alarm_description: str,
        evaluation_periods: int,
    ) -> None:
        alarm = aws_cloudwatch.Alarm(
            scope,
            name,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison_operator,
            treat_missing_data=treat_missing_data,
            alarm_description=alarm_description,
            evaluation_periods=evaluation_periods,
        )
        if self._topic is not None:
            alarm.add_alarm_action(aws_cloudwatch_actions.SnsAction(self._topic))

    def _text(self, what: str, anchor: str) -> str:
        return f"{what} What to do: {self._runbook}#{anchor}"

    def _make_topic(self, config: Config) -> aws_sns.ITopic | None:
        if config.alarm_topic:
            return aws_sns.Topic.from_topic_arn(self, "Topic", config.alarm_topic)
        if not config.alarm_email:
            return None
        topic = aws_sns.Topic(self, "Topic", enforce_ssl=True)
        topic.apply_removal_policy(RemovalPolicy.DESTROY)
        topic.add_subscription(subscriptions.EmailSubscription(config.alarm_email))
        topic.grant_publish(aws_iam.ServicePrincipal("cloudwatch.amazonaws.com"))
        return topic


def per(minutes: int) -> Duration:
    """The period over which a metric is summed up."""
    return Duration.minutes(minutes)
