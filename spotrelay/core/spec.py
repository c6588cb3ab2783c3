"""What a user asks for: the spec of a run, checked whole, every mistake named."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, cast

from spotrelay.core.codec import field_types, from_json
from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import Market, Pool

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}\Z")
ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
INSTANCE_TYPE = re.compile(r"^[a-z0-9-]+\.[a-z0-9-]+\Z")
SECRET = re.compile(r"^(ssm:/?[A-Za-z0-9_./-]+|secretsmanager:[A-Za-z0-9/_+=.@:-]+)\Z")
IMAGE = re.compile(r"^[a-z0-9./:_-]+@sha256:[0-9a-f]{64}\Z")
SHA256 = re.compile(r"^[0-9a-f]{64}\Z")


class NoCheckpoint(Enum):
    """What to do when a machine was lost and no verified checkpoint exists."""

    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True)
class Limits:
    """Where spending ends. Checked before every launch."""

    max_launches: int = 100
    max_failures: int = 3  # in a row, of the user's own program or of the boot, without a new step
    max_hours: float = 240.0  # wall time since submission
    max_dollars: float | None = None  # machine time at recorded prices; None: no ceiling
    on_demand_prices: dict[str, float] = field(default_factory=dict)  # dollars an hour by type: EC2 tells none

    def on_demand_price(self, pool: Pool) -> float | None:
        """Dollars an hour of an on-demand pool, as the spec says; None for Spot and where it says nothing."""
        return self.on_demand_prices.get(pool.instance_type) if pool.market == Market.ON_DEMAND.value else None


@dataclass(frozen=True)
class Cadence:
    """How often to checkpoint. Measured costs decide between the floor and the ceiling."""

    floor_s: float = 60.0
    ceiling_s: float = 1800.0
    every_s: float | None = None  # fixed interval, if you insist
    every_steps: int | None = None  # fixed number of steps, if you insist


@dataclass(frozen=True)
class Spec:
    """A run as its user wrote it."""

    command: tuple[str, ...]
    instance_types: tuple[str, ...]
    zones: tuple[str, ...] = ()  # empty: every zone in which the stack has a subnet
    on_demand: bool = False  # may the last rung be on-demand
    failover: bool = True
    on_no_checkpoint: NoCheckpoint = NoCheckpoint.RESTART
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # variable to ssm:… or secretsmanager:…
    setup: tuple[tuple[str, ...], ...] = ()  # argument lists, run once on each machine
    code_key: str = ""  # S3 key of the code bundle; `submit --code` fills it in
    code_digest: str = ""  # SHA-256 of the bundle, hexadecimal
    image: str = ""  # container image by digest, instead of a bundle
    limits: Limits = Limits()
    cadence: Cadence = Cadence()


def parse_spec(data: Any) -> Spec:
    """The spec in a mapping read from YAML or JSON.

    Raises:
        InvalidInput: names every unknown key, wrong type and impossible value, so that one look
            is enough to mend the file. Nothing was submitted.
    """
    if not isinstance(data, dict):
        raise InvalidInput("the run spec is a mapping of keys to values; this one is not")
    unknown = sorted(_unknown_keys(Spec, data, ""))
    if unknown:
        known = ", ".join(f.name for f in fields(Spec))
        raise InvalidInput(f"unknown key in the run spec: {', '.join(unknown)}. Known: {known}")
    mistakes = _mistakes(Spec, data, "spec")
    if mistakes:
        raise InvalidInput("; ".join(mistakes))
    spec = from_json(Spec, data, "spec")
    problems = list(_problems(spec))
    if problems:
        raise InvalidInput("the run spec cannot work: " + "; ".join(problems))
    return spec


def checked_run_id(text: str) -> str:
    """The id itself.

    Raises:
        InvalidInput: it would not fit into a key, a tag and a token alike.
    """
    if not RUN_ID.match(text):
        raise InvalidInput(
            f"{text!r} is no run id: 1 to 40 lower-case letters, digits and hyphens, not starting with a hyphen"
        )
    return text


def pools_of(spec: Spec, zones: tuple[tuple[str, str], ...]) -> tuple[Pool, ...]:
    """Every pool the spec allows, preferred first: types in its order, Spot before on-demand.

    Args:
        zones: (region, zone) of each subnet of the stack.
    """
    open_zones = [(r, z) for r, z in zones if not spec.zones or z in spec.zones]
    markets = [Market.SPOT] + ([Market.ON_DEMAND] if spec.on_demand else [])
    return tuple(Pool(r, z, t, m.value) for m in markets for t in spec.instance_types for r, z in open_zones)


def interval_bounds(cadence: Cadence) -> tuple[timedelta, timedelta]:
    """Floor and ceiling of the checkpoint interval."""
    return timedelta(seconds=cadence.floor_s), timedelta(seconds=cadence.ceiling_s)


def _unknown_keys(kind: type, data: dict[str, Any], prefix: str) -> list[str]:
    hints = field_types(kind)
    found = [f"{prefix}{key}" for key in data if key not in hints]
    for key, value in data.items():
        inner = hints.get(key)
        if inner is not None and is_dataclass(inner) and isinstance(value, dict):
            found += _unknown_keys(cast(type, inner), value, f"{prefix}{key}.")
    return found


def _mistakes(kind: type, data: dict[str, Any], where: str) -> list[str]:
    """Every value of the wrong type and every missing key; `from_json` would stop at the first."""
    found = []
    for each in fields(kind):
        inner, path = field_types(kind)[each.name], f"{where}.{each.name}"
        if each.name not in data:
            if each.default is MISSING and each.default_factory is MISSING:
                found.append(f"{path}: missing")
        elif is_dataclass(inner) and isinstance(data[each.name], dict):
            found += _mistakes(cast(type, inner), data[each.name], path)
        else:
            try:
                from_json(cast(type, inner), data[each.name], path)
            except InvalidInput as error:
                found.append(str(error))
    return found


def _problems(spec: Spec) -> list[str]:
    found = []
    if not spec.command or not all(spec.command[:1]):
        found.append("command is empty: give the program and its arguments as a list")
    if not spec.instance_types:
        found.append("instance_types is empty: name at least one, such as g5.xlarge")
    found += [f"instance_types: {t!r} is no instance type" for t in spec.instance_types if not INSTANCE_TYPE.match(t)]
    found += [f"env: {name!r} is no variable name" for name in (*spec.env, *spec.secrets) if not ENV_NAME.match(name)]
    found += [f"env: {name!r} is set twice" for name in spec.secrets if name in spec.env]
    found += [f"env: {n!r} is Spotrelay's own" for n in (*spec.env, *spec.secrets) if n.startswith("SPOTRELAY_")]
    found += [
        f"secrets.{n}: a reference was expected (ssm:/name or secretsmanager:id)"
        for n, ref in spec.secrets.items()
        if not SECRET.match(ref)
    ]
    if any("\0" in part for part in (*spec.command, *spec.env.values(), *(p for line in spec.setup for p in line))):
        found.append("a NUL byte cannot be passed to a program")
    if spec.image and not IMAGE.match(spec.image):
        found.append("image: pin it by digest, name@sha256:…")
    if spec.code_digest and not SHA256.match(spec.code_digest):
        found.append("code_digest: 64 hexadecimal digits were expected")
    if spec.image and spec.code_key:
        found.append("code and image exclude each other")
    return found + _limit_problems(spec)


def _limit_problems(spec: Spec) -> list[str]:
    found = []
    limits, cadence = spec.limits, spec.cadence
    positive = {
        "limits.max_launches": limits.max_launches,
        "limits.max_failures": limits.max_failures,
        "limits.max_hours": limits.max_hours,
        "limits.max_dollars": limits.max_dollars,
        "cadence.floor_s": cadence.floor_s,
        "cadence.ceiling_s": cadence.ceiling_s,
        "cadence.every_s": cadence.every_s,
        "cadence.every_steps": cadence.every_steps,
    }
    found += [f"{name} must be above zero" for name, value in positive.items() if value is not None and not value > 0]
    prices = limits.on_demand_prices.items()
    found += [f"limits.on_demand_prices.{kind} must be above zero" for kind, price in prices if not price > 0]
    if spec.on_demand and limits.max_dollars is not None and not limits.on_demand_prices:
        found.append("on_demand with limits.max_dollars needs limits.on_demand_prices: EC2 tells no on-demand price")
    if cadence.floor_s > cadence.ceiling_s:
        found.append("cadence.floor_s is above cadence.ceiling_s")
    if cadence.every_s is not None and cadence.every_steps is not None:
        found.append("cadence: every_s and every_steps exclude each other")
    return found
