"""The home stack: table, bucket, bus, control plane, and a launchpad in the home region."""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import CfnOutput, Duration, Stack, aws_cloudwatch, aws_iam, aws_s3_assets
from constructs import Construct

from handlers import settings
from infra.agent import Archive
from infra.assets import Bundle
from infra.config import Config
from infra.constructs.alarms import Alarms, per
from infra.constructs.events import EC2_EVENTS, OUR_EVENTS, OUR_SOURCE, STATUS_SOURCE, HomeBus
from infra.constructs.function import Code
from infra.constructs.hosts import Hosts
from infra.constructs.identity import InstanceIdentity
from infra.constructs.launching import LaunchRights, Pad
from infra.constructs.launchpad import Facts, Launchpad
from infra.constructs.pipeline import Pipeline
from infra.constructs.replicas import Replication, replicas
from infra.constructs.store import Store
from infra.constructs.sweep import Sweep
from infra.constructs.switch import KillSwitch
from infra.constructs.vault import Vault


class HomeStack(Stack):
    """Everything that exists once."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        config: Config,
        *,
        bundle: Bundle,
        hosts: Bundle,
        agent: Archive,
        **props: Any,
    ) -> None:
        super().__init__(scope, name, **props)
        self._config = config
        self.alarms = Alarms(self, "Alarms", config)
        self.store = Store(self, "Store", config)
        self.vault = Vault(self, "Vault", config)
        self.replication = Replication(self, "Replication", config, self.vault) if replicas(config) else None
        self.switch = KillSwitch(self, "KillSwitch", config)
        self.home = HomeBus(self, "Home", config)
        self.identity = InstanceIdentity(self, "Identity", config)
        self.launchpad = self._launchpad(agent)
        self._admit_instances()
        self.places = self._places()
        self._control_plane(bundle)
        self._reach_hosts(hosts)
        self._put_out()

    def _launchpad(self, agent: Archive) -> Launchpad:
        asset = aws_s3_assets.Asset(self, "Agent", path=str(agent.path), asset_hash=agent.sha256)
        self.identity.grant_agent(asset.bucket.bucket_arn, asset.s3_object_key)
        self.agent_key = asset.s3_object_key
        self._agent = (asset.s3_bucket_name, asset.bucket.bucket_arn, asset.s3_object_key, agent.sha256)
        facts = Facts(
            agent_bucket=asset.s3_bucket_name,
            agent_key=asset.s3_object_key,
            agent_sha256=agent.sha256,
            table=self.store.table.table_name,
            bucket=self.vault.bucket.bucket_name,
            bus=self.home.bus.event_bus_name,
            home_region=self.region,
            stack=self._config.stack,
            python=self._config.instance_python,
        )
        return Launchpad(
            self,
            "Launchpad",
            self._config,
            facts=facts,
            instance_profile=self.identity.profile.ref,
            image=self._config.image,
            boots_from=self._config.boots_from,
            zones=self._config.zones,
            network=self._config.vpc,
        )

    def _admit_instances(self) -> None:
        self._admit(self.identity.role)
        if self.replication is not None:
            self.replication.grant_machines(self.identity.role)

    def _admit(self, role: aws_iam.Role) -> None:
        """What an attempt needs, on whichever machine."""
        self.store.grant_attempts(role)
        self.vault.grant_attempts(role)
        self.home.grant_publish(role, OUR_SOURCE)

    def _places(self) -> str:
        entries = [f'"{self.region}":{self.launchpad.place()}']
        entries += [f'"{name}":{json.dumps(place.model_dump())}' for name, place in self._config.places.items()]
        return f"{{{','.join(entries)}}}"

    def _pads_elsewhere(self) -> dict[str, Pad]:
        places = self._config.places.items()
        return {name: Pad(name, place.launch_template, tuple(place.subnets.values())) for name, place in places}

    def _control_plane(self, bundle: Bundle) -> None:
        code = Code(bundle, self._environment())
        self.interruptions = Pipeline(
            self,
            "Interruptions",
            self._config,
            handler="handlers.interruptions.handler",
            code=code,
            timeout=Duration.seconds(30),
            alarms=self.alarms,
            stale_after_s=60,
            batch=1,  # a notice must not wait for its neighbours, nor be cut off with them
        )
        self.runs = Pipeline(
            self,
            "Runs",
            self._config,
            handler="handlers.runs.handler",
            code=code,
            timeout=Duration.seconds(60),
            alarms=self.alarms,
            stale_after_s=300,
        )
        for name, pattern in EC2_EVENTS.items():
            self.interruptions.subscribe(name, pattern)
            self.interruptions.subscribe(f"Forwarded{name}", pattern, self.home.bus)
        self.runs.subscribe("OurEvents", OUR_EVENTS, self.home.bus)
        self.sweep = Sweep(self, "Sweep", self._config, code=code, alarms=self.alarms)
        workers = [self.interruptions.worker, self.runs.worker, self.sweep.worker]
        for worker in workers:
            worker.function.add_environment(settings.RUNS_QUEUE, self.runs.queue.queue_url)
            self.runs.grant_send(worker.role)
            self._empower(worker.role)
        for worker in (self.runs.worker, self.sweep.worker):  # not the one that answers notices: it has no time
            self.vault.grant_collection(worker.role)
            if self.replication is not None:
                self.replication.grant_collection(worker.role)
            self.store.grant_collection(worker.role)
        self._let_launch([worker.role for worker in workers])
        if self._config.placement_scores:
            self.sweep.grant_scores()
        self._watch()

    def _reach_hosts(self, bundle: Bundle) -> None:
        self.hosts = Hosts(self, "Hosts", self._config, code=Code(bundle, self._environment()), alarms=self.alarms)
        self.hosts.grant_agent(*self._agent)
        self.store.grant_sight(self.hosts.worker.role)
        self._admit(self.hosts.machine_role)
        for worker in (self.interruptions.worker, self.runs.worker, self.sweep.worker):
            self.hosts.let_call(worker)

    def _environment(self) -> dict[str, str]:
        return {
            settings.TABLE: self.store.table.table_name,
            settings.BUCKET: self.vault.bucket.bucket_name,
            settings.BUS: self.home.bus.event_bus_name,
            settings.STACK: self._config.stack,
            settings.HOME_REGION: self.region,
            settings.PLACES: self.places,
            settings.SWITCH: self.switch.name,
            settings.TIME_SCALE: "1",
            settings.LAUNCH_RATE: str(self._config.launch_rate),
            settings.TRANSFER_PRICE: str(self._config.transfer_price),
            settings.DAY_DOLLARS: self._config.day_dollars,
            settings.PLACEMENT_SCORES: settings.ON if self._config.placement_scores else settings.OFF,
            **self._copies(settings.REPLICAS),
        }

    def _copies(self, name: str) -> dict[str, str]:
        """Where the bucket's copies are, under this name; nothing where there are none."""
        found = replicas(self._config)
        return {name: json.dumps(found)} if found else {}

    def _empower(self, role: aws_iam.Role) -> None:
        """What `respond` needs, whichever function runs it."""
        self.store.grant_control_plane(role)
        self.vault.grant_control_plane(role)
        if self.replication is not None:
            self.replication.grant_control_plane(role)
        self.switch.grant_read(role)
        self.home.grant_publish(role, STATUS_SOURCE)

    def _let_launch(self, roles: list[aws_iam.Role]) -> None:
        """All three: whichever function looks at a run also does what follows from it."""
        for name, pad in {"Here": self.launchpad.pad, **self._pads_elsewhere()}.items():
            LaunchRights(
                self,
                f"Launch-{name}",
                managed=self._config.stack,
                pad=pad,
                instance_role_arn=self.identity.role.role_arn,
                roles=roles,
            )

    def _watch(self) -> None:
        overdue = "A run trains and has had no new verified checkpoint for longer than its spec allows."
        hanging = "A program shows life and gets nowhere."
        surplus = "A machine lives beside the one that should, long after its attempt was over."
        failing = "Deleting what no checkpoint names any more keeps failing."
        for name, metric, what, anchor, minutes, at_least in (
            ("Quarantined", settings.QUARANTINED, "A malformed event was set aside.", "quarantined-events", 5, 1),
            ("Orphans", settings.ORPHANS_TERMINATED, "A machine that no run knew of was ended.", "orphans", 5, 1),
            ("SweepSteps", settings.SWEEP_FAILURES, "A step of the sweep failed.", "sweep-steps", 5, 1),
            ("Overdue", settings.CHECKPOINTS_OVERDUE, overdue, "checkpoints-overdue", 5, 1),
            ("NoProgress", settings.NO_PROGRESS, hanging, "alive-without-progress", 5, 1),
            ("TooMany", settings.MACHINES_TOO_MANY, surplus, "too-many-machines", 5, 1),
            ("Uncollected", settings.COLLECTIONS_POSTPONED, failing, "not-collected", 60, 4),
        ):
            counted = self._metric(metric, "Sum", minutes)
            self.alarms.raise_when(self, name, metric=counted, at_least=at_least, what=what, anchor=anchor)
        self._watch_money()

    def _watch_money(self) -> None:
        day, hour = self._config.budget_dollars_per_day, self._config.spend_dollars_per_hour
        if day is not None:
            what = f"No money was left of the {day:g} dollars a day: machines are waited for, or end."
            refused = self._metric(settings.MONEY_REFUSED, "Sum", 5)
            self.alarms.raise_when(self, "Money", metric=refused, at_least=1, what=what, anchor="budget-used-up")
        if hour is not None:
            what = f"Machines cost {hour:g} dollars an hour or more."
            rate = self._metric(settings.SPEND_RATE, "Maximum", 5)
            self.alarms.raise_when(self, "Rate", metric=rate, at_least=hour * 100, what=what, anchor="spend-rate")

    def _metric(self, name: str, statistic: str, minutes: int) -> aws_cloudwatch.Metric:
        return aws_cloudwatch.Metric(
            namespace=settings.METRICS_NAMESPACE,
            metric_name=name,
            dimensions_map={settings.SERVICE_DIMENSION: self._config.stack},
            statistic=statistic,
            period=per(minutes),
        )

    def _put_out(self) -> None:
        for name, value in {
            "Table": self.store.table.table_name,
            "Bucket": self.vault.bucket.bucket_name,
            "Bus": self.home.bus.event_bus_name,
            "Switch": self.switch.name,
            "Places": self.places,
            "DayDollars": self._config.day_dollars,
            "RunsQueueUrl": self.runs.queue.queue_url,
            "InterruptionsQueueUrl": self.interruptions.queue.queue_url,
            "InstanceRoleArn": self.identity.role.role_arn,
            "InterruptionsFunction": self.interruptions.worker.function.function_name,
            "RunsFunction": self.runs.worker.function.function_name,
            "SweepFunction": self.sweep.worker.function.function_name,
            "HostsFunction": self.hosts.worker.function.function_name,
            "SweepSchedule": self.sweep.schedule.ref,
            **self._copies("Replicas"),
        }.items():
            CfnOutput(self, name, value=value)
