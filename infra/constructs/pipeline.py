"""Rules into a queue, the queue into a function, what fails into a dead-letter queue, and an alarm on that."""

from __future__ import annotations

from aws_cdk import Duration, aws_cloudwatch, aws_events, aws_iam, aws_lambda_event_sources, aws_sqs
from constructs import Construct

from infra.config import Config
from infra.constructs.alarms import Alarms, per
from infra.constructs.events import into_queue
from infra.constructs.function import Code, ControlFunction

TRIES = 5
KEPT = Duration.days(14)


class Pipeline(Construct):
    """A queue that one function works off, record by record: a bad record never blocks its neighbours.

    Args:
        batch: events of one call; all of them together have to fit into the function's timeout.
    """

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
        stale_after_s: int,
        batch: int = 5,
    ) -> None:
        super().__init__(scope, name)
        self.dead = dead_letter_queue(self, "Dead", alarms, "Events were given up on after every retry.")
        self.queue = aws_sqs.Queue(
            self,
            "Queue",
            encryption=aws_sqs.QueueEncryption.SQS_MANAGED,  # a key of ours would need a policy, or events vanish
            enforce_ssl=True,
            visibility_timeout=timeout.plus(Duration.seconds(15)),  # short: a crash must not cost half a notice
            retention_period=Duration.days(4),
            dead_letter_queue=aws_sqs.DeadLetterQueue(queue=self.dead, max_receive_count=TRIES),
        )
        self.worker = ControlFunction(
            self, "Worker", config, handler=handler, code=code, timeout=timeout, alarms=alarms
        )
        self.worker.function.add_event_source(
            aws_lambda_event_sources.SqsEventSource(
                self.queue, batch_size=batch, report_batch_item_failures=True, max_concurrency=config.concurrency
            )
        )
        alarms.raise_when(
            self,
            "Stale",
            metric=self.queue.metric_approximate_age_of_oldest_message(period=per(1), statistic="Maximum"),
            at_least=stale_after_s,
            periods=3,
            what="Events wait in a queue for longer than they are worth: replacements come late.",
            anchor="stale-queue",
        )

    def subscribe(self, name: str, pattern: aws_events.EventPattern, bus: aws_events.IEventBus | None = None) -> None:
        """Put matching events of a bus into the queue; None means the account's default bus."""
        rule = aws_events.Rule(self, name, event_pattern=pattern, event_bus=bus)
        rule.add_target(into_queue(self.queue, self.dead))

    def grant_send(self, role: aws_iam.Role) -> None:
        """Put messages into the queue."""
        role.add_to_policy(
            aws_iam.PolicyStatement(sid="LookAgain", actions=["sqs:SendMessage"], resources=[self.queue.queue_arn])
        )


def dead_letter_queue(scope: Construct, name: str, alarms: Alarms, what: str) -> aws_sqs.Queue:
    """A queue for what could not be handled, with an alarm on its first message."""
    queue = aws_sqs.Queue(
        scope, name, encryption=aws_sqs.QueueEncryption.SQS_MANAGED, enforce_ssl=True, retention_period=KEPT
    )
    metric: aws_cloudwatch.IMetric = queue.metric_approximate_number_of_messages_visible(
        period=per(1), statistic="Maximum"
    )
    alarms.raise_when(scope, f"{name}Letters", metric=metric, at_least=1, what=what, anchor="dead-letters")
    return queue
