"""What a deployment may choose: the context of `cdk.json`, checked whole before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from infra.host import ROOT, host_architecture, host_python
from spotrelay.core.budget import NO_CEILING
from spotrelay.core.line import LAUNCHES_A_SECOND
from spotrelay.core.scoring import Transfer

KEY = "spotrelay"  # of the context: one mapping, and `spotrelay:<key>` for a single value on the command line

DEFAULT_IMAGE = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.10-ubuntu-24.04/latest/ami-id"
IMAGE = r"^(ami-[0-9a-f]+|/[A-Za-z0-9_./-]+)$"  # an AMI, or an SSM parameter that names one
DEFAULT_INSTANCE_PYTHON = "/opt/pytorch/bin/python"  # where that image keeps the Python with torch
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # Lambda runtimes that aws-cdk-lib knows and Spotrelay supports

RegionName = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
RootDevice = Literal["/dev/sda1", "/dev/xvda"]  # what Ubuntu, and what Amazon Linux, boots from
ZoneName = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d[a-z]$")]
SubnetId = Annotated[str, Field(pattern=r"^subnet-[0-9a-f]+$")]


class BadConfig(Exception):
    """The context cannot work. Its text names every mistake; nothing was built or deployed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Part):
    """A VPC of the user's own, instead of one that the stack makes."""

    id: Annotated[str, Field(pattern=r"^vpc-[0-9a-f]+$")]
    subnets: Annotated[dict[ZoneName, SubnetId], Field(min_length=1)]
    route_tables: tuple[Annotated[str, Field(pattern=r"^rtb-[0-9a-f]+$")], ...] = ()  # get S3, DynamoDB endpoints


class Place(_Part):
    """Where machines can be launched in a further region: what its stack put out when it was deployed."""

    launch_template: Annotated[str, Field(pattern=r"^lt-[0-9a-f]+$")]
    version: Annotated[str, Field(pattern=r"^\d+$")]
    subnets: Annotated[dict[ZoneName, SubnetId], Field(min_length=1)]


class Home(_Part):
    """What the home stack put out: machines in further regions must be told."""

    table: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9.-]{3,63}$")]


class _Image(_Part):
    """What machines boot from in one region."""

    image: Annotated[str, Field(pattern=IMAGE)] = DEFAULT_IMAGE  # looked up in that region
    root_device: RootDevice | None = None  # empty: what the parameter's name tells

    @model_validator(mode="after")
    def _boots(self) -> Self:
        if self.image.startswith("ami-") and self.root_device is None:
            devices = " or ".join(get_args(RootDevice))
            raise ValueError(
                f"{self.image} does not tell what it boots from: set root_device to {devices} beside it, as "
                f"`aws ec2 describe-images --image-ids {self.image} --query Images[0].RootDeviceName` says"
            )
        return self

    @property
    def boots_from(self) -> str:
        """The device name of the root volume: another name would add a second disk beside a small root."""
        return self.root_device or ("/dev/sda1" if "ubuntu" in self.image else "/dev/xvda")


class FurtherRegion(_Image):
    """A region besides the home region: it forwards events, and may run instances."""

    zones: Annotated[int, Field(ge=1, le=6)] = 3
    vpc: Network | None = None
    place: Place | None = None  # empty: nothing is launched there yet
    replica: bool = False  # whether checkpoints are copied there


class Secrets(_Part):
    """What an instance may read to hand to the user's program."""

    ssm: tuple[Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./*-]+$")], ...] = ("/spotrelay/*",)
    secretsmanager: tuple[Annotated[str, Field(pattern=r"^arn:[a-z-]+:secretsmanager:")], ...] = ()
    keys: tuple[Annotated[str, Field(pattern=r"^arn:[a-z-]+:kms:")], ...] = ()  # customer keys they are encrypted with


class Config(_Image):
    """The whole configuration; every field is a key of the context `spotrelay`."""

    stack: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")] = "Spotrelay"
    home_region: RegionName | None = None  # empty: where the credentials point
    home: Home | None = None  # empty: further regions only forward events
    regions: dict[RegionName, FurtherRegion] = Field(default_factory=dict)
    architecture: Literal["arm64", "x86_64", "host"] = "arm64"
    python: str = "3.13"
    zones: Annotated[int, Field(ge=1, le=6)] = 3
    cidr: IPv4Network = IPv4Network("10.42.0.0/16")
    vpc: Network | None = None
    flow_logs: bool = False
    instance_python: Annotated[str, Field(pattern=r"^/[^\s'\"]+$")] = DEFAULT_INSTANCE_PYTHON
    volume_gib: Annotated[int, Field(ge=20, le=16384)] = 200
    secrets: Secrets = Secrets()
    alarm_email: Annotated[str, Field(pattern=r"^$|^[^@\s]+@[^@\s]+$")] = ""
    alarm_topic: Annotated[str, Field(pattern=r"^$|^arn:[a-z-]+:sns:")] = ""
    runbook: str = "docs/runbook.md"
    protected: bool = True
    log_retention_days: Literal[1, 3, 5, 7, 14, 30, 60, 90, 180, 365] = 30
    budget_dollars_per_day: Annotated[float, Field(ge=0, le=1e6)] | None = None  # of all machines; empty: no ceiling
    spend_dollars_per_hour: Annotated[float, Field(gt=0, le=1e6)] | None = None  # alarmed above; empty: never
    concurrency: Annotated[int, Field(ge=2, le=1000)] = 50
    transfer_price: Annotated[float, Field(gt=0, le=10)] = Transfer.dollars_per_gib  # from the bucket's region
    placement_scores: bool = True  # whether EC2 is asked, rarely, where it has Spot capacity
    launch_rate: Annotated[float, Field(gt=0, le=1000)] = LAUNCHES_A_SECOND  # a second and region, as AWS allows you
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("python")
    @classmethod
    def _known_python(cls, value: str) -> str:
        if value not in (*PYTHONS, "host"):
            raise ValueError(f"one of {', '.join(PYTHONS)} or host was expected")
        return value

    @field_validator("cidr")
    @classmethod
    def _roomy(cls, value: IPv4Network) -> IPv4Network:
        if not 16 <= value.prefixlen <= 22:
            raise ValueError("a network between /16 and /22 was expected")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.regions and self.home_region is None:
            raise ValueError("home_region must be named once there are further regions")
        if self.home_region in self.regions:
            raise ValueError(f"{self.home_region} is the home region: it cannot be a further one too")
        if self.alarm_email and self.alarm_topic:
            raise ValueError("alarm_email and alarm_topic exclude each other: give one")
        early = [name for name, region in self.regions.items() if region.place is not None and self.home is None]
        if early:
            raise ValueError(f"regions.{early[0]}.place: name the home stack's table and bucket under home first")
        homeless = [name for name, region in self.regions.items() if region.replica and self.home is None]
        if homeless:
            raise ValueError(f"regions.{homeless[0]}.replica: name the home stack's table and bucket under home first")
        own = [key for key in self.tags if key.lower().startswith(("spotrelay:", "aws:"))]
        if own:
            raise ValueError(f"tags: {', '.join(own)}: names that begin with spotrelay: or aws: are taken")
        return self

    @property
    def places(self) -> dict[str, Place]:
        """Further regions in which machines can be launched."""
        return {name: region.place for name, region in self.regions.items() if region.place is not None}

    @property
    def day_dollars(self) -> str:
        """What the functions are told of the day's ceiling; "none" when nobody wants the money counted."""
        if self.budget_dollars_per_day is not None:
            return repr(self.budget_dollars_per_day)
        return "none" if self.spend_dollars_per_hour is None else repr(NO_CEILING)

    @property
    def lambda_architecture(self) -> str:
        """arm64 or x86_64, with `host` resolved."""
        return host_architecture() if self.architecture == "host" else self.architecture

    @property
    def lambda_python(self) -> str:
        """Such as 3.13, with `host` resolved."""
        return host_python() if self.python == "host" else self.python


def read_config(context: Mapping[str, Any]) -> Config:
    """The configuration in a CDK context: the mapping `spotrelay`, and each `spotrelay:<key>` over it.

    Raises:
        BadConfig: names every unknown key and every value that cannot work.
    """
    base = context.get(KEY) or {}
    if not isinstance(base, Mapping):
        raise BadConfig(f"context {KEY}: a mapping was expected, not {base!r}")
    single = {name.removeprefix(f"{KEY}:"): value for name, value in context.items() if name.startswith(f"{KEY}:")}
    try:
        return Config.model_validate({**base, **{name: _from_text(value) for name, value in single.items()}})
    except ValidationError as error:
        raise BadConfig(_explain(error)) from error


def cdk_context() -> dict[str, Any]:
    """The context in `cdk.json`, which only the CDK command line would read otherwise."""
    value = json.loads((ROOT / "cdk.json").read_text())["context"]
    assert isinstance(value, dict)
    return value


def _from_text(value: Any) -> Any:
    """A value given as `-c spotrelay:key=value` is a text: JSON where it is JSON, itself where not."""
    if not isinstance(value, str) or value[:1] not in "[{0123456789tf":
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return value if isinstance(parsed, float) else parsed


def _explain(error: ValidationError) -> str:
    lines = [f"  {KEY}.{_place(item['loc'])}: {item['msg']} (given: {item['input']!r})" for item in error.errors()]
    known = ", ".join(Config.model_fields)
    return "the context in cdk.json (or -c) cannot work:\n" + "\n".join(lines) + f"\nKnown keys: {known}"


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(whole)"
