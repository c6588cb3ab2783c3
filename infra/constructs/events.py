"""Which events matter, and how they get from a bus to a queue."""

from __future__ import annotations

from aws_cdk import Duration, aws_events, aws_events_targets, aws_iam, aws_sqs
from constructs import Construct

from infra.config import Config

OUR_SOURCE = "spotrelay"  # what instances and the console say to the control plane
STATUS_SOURCE = "spotrelay.run"  # what the control plane tells its users

EC2_EVENTS = {
    "InterruptionWarning": aws_events.EventPattern(
        source=["aws.ec2"], detail_type=["EC2 Spot Instance Interruption Warning"]
    ),
    "RebalanceRecommendation": aws_events.EventPattern(
        source=["aws.ec2"], detail_type=["EC2 Instance Rebalance Recommendation"]
    ),
    "StateChange": aws_events.EventPattern(
        source=["aws.ec2"],
        detail_type=["EC2 Instance State-change Notification"],
        detail={"state": ["shutting-down", "terminated", "stopping", "stopped"]},
    ),
    "Capacity": aws_events.EventPattern(
        source=["aws.ec2"],
        detail_type=[
            "EC2 Capacity Reservation Instance Interruption Warning",
            "Capacity Block Expiration Warning",
            "Capacity Block Reservation Expiration Warning",  # as some partitions spell it
        ],
    ),
}
OUR_EVENTS = aws_events.EventPattern(source=[OUR_SOURCE])

RETRY_FOR = Duration.hours(1)  # by then a notice is long stale, and the sweep has found what it said
ATTEMPTS = 20


class HomeBus(Construct):
    """The stack's own bus: our own events, and those of EC2 that further regions forward."""

    def __init__(self, scope: Construct, name: str, config: Config) -> None:
        super().__init__(scope, name)
        self.bus = aws_events.EventBus(self, "Bus", event_bus_name=bus_name(config))

    def grant_publish(self, role: aws_iam.Role, *sources: str) -> None:
        """Put events of these sources, and of no other."""
        role.add_to_policy(
            aws_iam.PolicyStatement(
                sid="PublishEvents",
                actions=["events:PutEvents"],
                resources=[self.bus.event_bus_arn],
                conditions={"StringEquals": {"events:source": list(sources)}},
            )
        )


def bus_name(config: Config) -> str:
    """The home bus's name: known before it exists, so that further regions can address it."""
    return config.stack


def into_queue(queue: aws_sqs.IQueue, dead: aws_sqs.IQueue) -> aws_events_targets.SqsQueue:
    """A rule's target; what cannot be delivered ends in the dead-letter queue instead of nowhere."""
    return aws_events_targets.SqsQueue(queue, dead_letter_queue=dead, retry_attempts=ATTEMPTS, max_event_age=RETRY_FOR)
