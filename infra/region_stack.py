"""A further region: forwards EC2's events to the home bus and, once home is known, can run machines."""

from __future__ import annotations

from typing import Any

from aws_cdk import ArnFormat, CfnOutput, DefaultStackSynthesizer, Stack, aws_events, aws_events_targets, aws_iam
from constructs import Construct

from infra.agent import Archive
from infra.config import Config, FurtherRegion
from infra.constructs.acknowledge import acknowledge
from infra.constructs.alarms import Alarms
from infra.constructs.events import EC2_EVENTS, bus_name
from infra.constructs.identity import profile_name
from infra.constructs.launchpad import Facts, Launchpad
from infra.constructs.pipeline import dead_letter_queue
from infra.constructs.replicas import ReplicaBucket


class RegionStack(Stack):
    """Thin, and without assets of its own: rules to the home bus, and a launchpad."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        config: Config,
        region: FurtherRegion,
        *,
        agent: Archive,
        agent_key: str,
        **props: Any,
    ) -> None:
        super().__init__(scope, name, **props)
        # A topic takes alarms of its own region only.
        alarms = Alarms(self, "Alarms", config.model_copy(update={"alarm_topic": ""}))
        assert config.home_region is not None, "further regions need a home region; Config sees to that"
        self._home_region = config.home_region
        self._forward(config, alarms)
        if config.home is not None:
            self._launchpad(config, region, agent, agent_key)
        if region.replica:
            ReplicaBucket(self, "Replica", config)

    def _forward(self, config: Config, alarms: Alarms) -> None:
        dead = dead_letter_queue(self, "Dead", alarms, "Events could not be forwarded to the home region.")
        acknowledge(dead, "It is the dead-letter queue of the rules that forward.", "SQS3")
        bus = self.format_arn(
            service="events",
            region=self._home_region,
            resource="event-bus",
            resource_name=bus_name(config),
            arn_format=ArnFormat.SLASH_RESOURCE_NAME,
        )
        role = aws_iam.Role(self, "Forwarder", assumed_by=aws_iam.ServicePrincipal("events.amazonaws.com"))
        home = aws_events.EventBus.from_event_bus_arn(self, "Home", bus)
        for name, pattern in EC2_EVENTS.items():
            rule = aws_events.Rule(self, name, event_pattern=pattern)
            rule.add_target(aws_events_targets.EventBus(home, role=role, dead_letter_queue=dead))

    def _launchpad(self, config: Config, region: FurtherRegion, agent: Archive, agent_key: str) -> None:
        assert config.home is not None
        facts = Facts(
            agent_bucket=f"cdk-{DefaultStackSynthesizer.DEFAULT_QUALIFIER}-assets-{self.account}-{self._home_region}",
            agent_key=agent_key,
            agent_sha256=agent.sha256,
            table=config.home.table,
            bucket=config.home.bucket,
            bus=bus_name(config),
            home_region=self._home_region,
            stack=config.stack,
            python=config.instance_python,
        )
        launchpad = Launchpad(
            self,
            "Launchpad",
            config,
            facts=facts,
            instance_profile=profile_name(config, self._home_region),
            image=region.image,
            boots_from=region.boots_from,
            zones=region.zones,
            network=region.vpc,
        )
        CfnOutput(self, "Place", value=launchpad.place(), description="Goes into cdk.json under this region's place.")
