"""What the emulated EC2 remembers: instances, fleets, requests for Spot capacity."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spotrelay.localcloud.ec2.machine import Machine

SPOT = "spot"
ON_DEMAND = "on-demand"

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
"""As `InstanceState` in the EC2 API Reference."""

OVER = ("shutting-down", "terminated")


def new_id(prefix: str) -> str:
    """A fresh resource id, in the long form."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"


@dataclass(frozen=True)
class Pool:
    """One capacity pool."""

    region: str
    zone: str
    instance_type: str
    market: str

    def facts(self) -> dict[str, str]:
        """Its four coordinates by name, as capacity rules match them."""
        return {
            "region": self.region,
            "zone": self.zone,
            "instance_type": self.instance_type,
            "market": self.market,
        }


@dataclass(frozen=True)
class Blueprint:
    """One launch, with the launch template, its overrides and the request's own parameters merged."""

    pool: Pool
    subnet_id: str
    vpc_id: str
    image_id: str
    user_data: bytes | None
    profile: str
    """name or ARN of the instance profile; empty for none"""
    role: str
    """ARN of the role in it"""
    tags: dict[str, dict[str, str]]
    """by resource type"""
    security_groups: tuple[str, ...]
    key_name: str
    shutdown_behavior: str
    """stop or terminate"""
    interruption_behavior: str
    max_price: float | None
    metadata: dict[str, Any]
    """MetadataOptions as asked for"""
    template_id: str
    template_version: str
    overridden: frozenset[str]
    """members that the request itself gives, where a template is used"""
    placement_group: str = ""
    reservation: str = ""
    """id of the capacity reservation that the request targets"""


@dataclass
class Notice:
    """EC2 has announced that it takes the instance."""

    action: str
    deadline: float
    """seconds since 1970, whole"""


@dataclass
class Instance:
    """One instance from its launch on; it is never forgotten here."""

    instance_id: str
    blueprint: Blueprint
    reservation_id: str
    client_token: str
    fleet_id: str
    owner: str
    launched_at: float
    home: Path
    private_ip: str
    spot_request_id: str = ""
    state: str = "pending"
    tags: dict[str, str] = field(default_factory=dict)
    state_reason: tuple[str, str] | None = None
    """code and message"""
    ended_at: float | None = None
    """when it left pending or running"""
    terminated_at: float | None = None
    notice: Notice | None = None
    rebalance_at: float | None = None
    is_zombie: bool = False
    machine: Machine | None = None
    metadata_endpoint: str = ""
    launch_index: int = 0
    hands: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """held by whoever starts or ends the machine"""

    @property
    def pool(self) -> Pool:
        """Where its capacity comes from."""
        return self.blueprint.pool

    @property
    def is_over(self) -> bool:
        """Whether EC2 has ended it, or is about to."""
        return self.state in OVER

    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:ec2:{self.pool.region}:{self.owner}:instance/{self.instance_id}"


@dataclass
class Fleet:
    """One instant fleet, with the answer that it was given."""

    fleet_id: str
    region: str
    request: dict[str, Any]
    answer: dict[str, Any]
    tags: dict[str, str]
    created_at: float
    client_token: str


@dataclass
class SpotRequest:
    """One request for Spot capacity, fulfilled at once."""

    request_id: str
    instance_id: str
    created_at: float
    tags: dict[str, str]
