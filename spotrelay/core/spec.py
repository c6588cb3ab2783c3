"""What a user asks for: the spec of a run, checked whole, every mistake named."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, is_dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import Enum
from math import isfinite
from typing import Any, cast, get_args, get_origin

from spotrelay.core.codec import Mistake, field_types, from_json, mistakes
from spotrelay.core.errors import InvalidInput
from spotrelay.core.placement import Market, Pool
from spotrelay.core.requirements import Requirements, problems

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}\Z")
ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*\Z")
INSTANCE_TYPE = re.compile(r"^[a-z0-9-]+\.[a-z0-9-]+\Z")
RESERVATION_ID = re.compile(r"^cr-[0-9a-z]{8,32}\Z")
ZONE = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d[a-z]\Z")
SECRET = re.compile(r"^(ssm:/?[A-Za-z0-9_./-]+|secretsmanager:[A-Za-z0-9/_+=.@:-]+)\Z")
IMAGE = re.compile(r"^[a-z0-9./:_-]+@sha256:[0-9a-f]{64}\Z")
PLACEMENT_GROUP = re.compile(r"^[!-~]([ -~]{0,253}[!-~])?\Z")  # up to 255 ASCII characters
SHA256 = re.compile(r"^[0-9a-f]{64}\Z")
NUMBER = re.compile(r"^[+-]?[0-9]+(\.[0-9]*)?\Z")
POWER = re.compile(r"^([+-]?[0-9]+)(\.[0-9]*)?[eE]([+-]?)([0-9]+)\Z")

ROOT = "spec"  # what paths in messages begin with
STAND_IN: dict[str, Any] = {"command": ["true"]}  # for required keys that are missing

MOST_HOURS = 8784  # a leap year
MOST_DOLLARS = 1e7
MOST_LAUNCHES = 400  # the run's row names every attempt: see `spotrelay.core.room`
LONGEST_INTERVAL_S = 7 * 86_400
MOST_SUSPECT_STEPS = 50  # a band of 128 losses has taken in what lasts longer than this
MOST_ROLLBACKS = 16  # a manifest names them all
LONGEST_KEPT_MINUTES = 24 * 60  # it bills like any other machine
MOST_KEPT = 100  # of the newest checkpoints
LONGEST_REUNION_S = 3600
MOST_NODES = 32  # the index entries of all machines of an attempt go into one transaction


class OwnMachines(Enum):
    """Where hosts of one's own stand on the ladder."""

    FIRST = "first"
    LAST = "last"
    NEVER = "never"


class NoCheckpoint(Enum):
    """What to do when a machine was lost and no verified checkpoint exists."""

    RESTART = "restart"
    STOP = "stop"


class AtCeiling(Enum):
    """What to do when there is no money left."""

    WAIT = "wait"  # for money of the account, which others give back or the next day brings; for cheaper machines
    STOP = "stop"  # the run ends, with a checkpoint


@dataclass(frozen=True)
class Limits:
    """Where spending ends. Checked before every launch."""

    max_launches: int = 100
    max_failures: int = 3  # in a row, of the user's own program or of the boot, without a new step
    max_hours: float = 240.0  # wall time since submission
    max_dollars: float | None = None  # machine time at recorded prices; None: no ceiling
    on_demand_prices: dict[str, float] = field(default_factory=dict)  # dollars an hour by type: EC2 tells none
    at_ceiling: AtCeiling = AtCeiling.WAIT

    def on_demand_price(self, pool: Pool) -> float | None:
        """Dollars an hour of an on-demand pool, as the spec says; None for Spot and where it says nothing."""
        return self.on_demand_prices.get(pool.instance_type) if pool.market == Market.ON_DEMAND.value else None


@dataclass(frozen=True)
class Cadence:
    """How often to checkpoint. Measured costs decide between the floor and the ceiling."""

    floor_s: float = 60.0
    ceiling_s: float = 7200.0
    every_s: float | None = None  # fixed interval, if you insist
    every_steps: int | None = None  # fixed number of steps, if you insist


@dataclass(frozen=True)
class HealthRules:
    """When a run counts as diverged, and whether it then goes back to the last good checkpoint by itself."""

    rollback: bool = False
    bad_steps: int = 3  # in a row whose loss or gradients are not finite
    suspect_steps: int = 30  # in a row with a loss outside its band
    max_rollbacks: int = 3  # within `window_steps`; then the attempt stops
    window_steps: int = 10_000


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay while the run goes on, beside the newest that may be resumed from or rolled back to."""

    newest: int = 3  # of those that are verified and not bad
    every_steps: int | None = None  # and the first at or after each multiple of so many steps; these stay for good


@dataclass(frozen=True)
class Reservation:
    """Capacity that was bought before, and is used before anything else."""

    id: str  # cr-…
    zone: str
    instance_type: str
    block: bool = False  # a Capacity Block for ML, which EC2 wants to be told


@dataclass(frozen=True)
class Spec:
    """A run as its user wrote it."""

    command: tuple[str, ...]
    instance_types: tuple[str, ...] = ()  # preferred first; `submit` fills it in from the requirements
    instance_requirements: Requirements = field(default_factory=Requirements)  # instead of names
    offered: dict[str, tuple[str, ...]] = field(default_factory=dict)  # region to types; `submit` fills it in
    zones: tuple[str, ...] = ()  # empty: every zone in which the stack has a subnet
    capacity_reservations: tuple[Reservation, ...] = ()  # asked first, in this order; targeted ones and blocks
    on_demand: bool = False  # may the last rung be on-demand
    on_demand_after_s: float | None = None  # without a Spot machine since it last trained; None: once all have refused
    on_demand_after_losses: int | None = None  # of Spot machines within `losses_within_s`: on-demand first
    losses_within_s: float = 3600.0
    back_to_spot: bool = True  # at a checkpoint, when the saving is worth the change
    deadline: str = ""  # ISO 8601 with an offset: on-demand when Spot would not make it
    deadline_hours: float | None = None  # the same, counted from the submission
    total_steps: int | None = None  # of the whole run; None: what the script says in its heartbeats
    training_hours: float | None = None  # of the whole run, as you expect; it counts until the run's own pace tells
    own_machines: OwnMachines = OwnMachines.NEVER  # when to ask the hosts that are registered with the stack
    own_kinds: tuple[str, ...] = ()  # kinds of these hosts that will do; empty: any
    failover: bool = True
    on_no_checkpoint: NoCheckpoint = NoCheckpoint.RESTART
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # variable to ssm:… or secretsmanager:…
    setup: tuple[tuple[str, ...], ...] = ()  # argument lists, run once on each machine
    bring_shim: bool = True  # the stack's own trainer_shim is put on the program's PYTHONPATH
    code_key: str = ""  # S3 key of the code bundle; `submit --code` fills it in
    code_digest: str = ""  # SHA-256 of the bundle, hexadecimal
    image: str = ""  # container image by digest, instead of a bundle
    limits: Limits = Limits()
    cadence: Cadence = Cadence()
    health: HealthRules = HealthRules()
    keep: Keep = Keep()
    nodes: int = 1  # machines that train together, as one attempt: all of them or none
    gpu_test: bool = True  # a machine whose GPUs compute wrongly is left before the run's setup
    hang_minutes: float | None = None  # without progress, until a program is replaced; 0: never; None: learnt
    keep_failed_minutes: float = 0.0  # the machine of the newest failed attempt stays so long, for debugging
    reunion_s: float = 120.0  # survivors of a gang wait so long for new machines in their zone; 0: all move at once
    placement_group: str = ""  # name of a cluster placement group for them, in every region that the run may go to

    def deadline_after(self, submitted: datetime) -> datetime | None:
        """When the run has to be done; None when it may take its time."""
        if self.deadline_hours is not None:
            return submitted + timedelta(hours=self.deadline_hours)
        return datetime.fromisoformat(self.deadline).astimezone(UTC) if self.deadline else None


def parse_spec(data: Any) -> Spec:
    """The spec in a mapping read from YAML or JSON.

    Raises:
        InvalidInput: names every unknown key, wrong type and impossible value, so that one look
            is enough to mend the file. Nothing was submitted.
    """
    if not isinstance(data, dict):
        raise InvalidInput("the run spec is a mapping of keys to values; this one is not")
    found = mistakes(Spec, data, ROOT)
    bad = [mistake.path for mistake in found]
    spec = from_json(Spec, STAND_IN | _usable(Spec, data, bad, ROOT), ROOT)
    unknown = [each.path.removeprefix(f"{ROOT}.") for each in found if each.kind is None]
    wrong = [each for each in found if each.kind is not None]
    problems = [each for each in _problems(spec) if not any(_about(mistake, each) for mistake in wrong)]
    told = _unknown(unknown) + [each.text + _hint(each) for each in wrong] + problems
    if told:
        raise InvalidInput("the run spec cannot work: " + "; ".join(told))
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


def pools_of(spec: Spec, zones: tuple[tuple[str, str], ...], own: tuple[Pool, ...] = ()) -> tuple[Pool, ...]:
    """Every pool the spec allows, preferred first: reservations, then types in its order, Spot before on-demand.

    Hosts of one's own come first or last, as it says.

    Args:
        zones: (region, zone) of each subnet of the stack.
        own: pools of the hosts that take runs at present.
    """
    open_zones = [(r, z) for r, z in zones if not spec.zones or z in spec.zones]
    markets = [Market.SPOT] + ([Market.ON_DEMAND] if spec.on_demand else [])
    bought = tuple(
        Pool(r, z, each.instance_type, (Market.BLOCK if each.block else Market.RESERVED).value, each.id)
        for each in spec.capacity_reservations
        for r, z in zones
        if z == each.zone
    )
    types = spec.instance_types
    sold = {r: spec.offered.get(r, ()) if spec.offered else types for r, _ in open_zones}
    sale = bought + tuple(Pool(r, z, t, m.value) for m in markets for t in types for r, z in open_zones if t in sold[r])
    if not asks_own(spec):
        return sale
    fit = tuple(pool for pool in own if not spec.own_kinds or pool.instance_type in spec.own_kinds)
    return fit + sale if spec.own_machines is OwnMachines.FIRST else sale + fit


def asks_own(spec: Spec) -> bool:
    """Whether hosts of one's own are asked at all. Images and gangs stay on EC2."""
    return spec.own_machines is not OwnMachines.NEVER and not spec.image and spec.nodes == 1


def _usable(kind: type, data: dict[str, Any], bad: list[str], where: str) -> dict[str, Any]:
    """What of this mapping has the right types, so that its values can be judged beside the mistakes."""
    kept: dict[str, Any] = {}
    for name, inner in field_types(kind).items():
        path = f"{where}.{name}"
        if name not in data:
            continue
        if is_dataclass(inner) and isinstance(data[name], dict):
            kept[name] = _usable(cast(type, inner), data[name], bad, path)
        elif not any(each == path or each.startswith((f"{path}.", f"{path}[")) for each in bad):
            kept[name] = data[name]
    return kept


def _about(mistake: Mistake, problem: str) -> bool:
    """Whether a problem speaks of a value that was left out because of this mistake."""
    path = re.escape(mistake.path.removeprefix(f"{ROOT}."))
    return re.search(rf"(?<![\w.]){path}(?!\w)", problem) is not None


def _unknown(paths: list[str]) -> list[str]:
    """One line about all unknown keys, with what may have been meant."""
    if not paths:
        return []
    meant = {path: _meant(path) for path in paths}
    named = ", ".join(f"{path} (did you mean {meant[path]}?)" if meant[path] else path for path in sorted(paths))
    known = "" if all(meant.values()) else f" (known: {', '.join(_known(Spec, ''))})"
    return [f"unknown key: {named}{known}"]


def _meant(path: str) -> str:
    known = _known(Spec, "")
    name = path.rpartition(".")[2]
    elsewhere = [each for each in known if each.rpartition(".")[2] == name]
    close = get_close_matches(path, known, 1, 0.8) + get_close_matches(name, known, 1, 0.8)
    return next(iter(elsewhere + close), "")


def _known(kind: type, prefix: str) -> list[str]:
    found = []
    for name, inner in field_types(kind).items():
        found += _known(cast(type, inner), f"{prefix}{name}.") if is_dataclass(inner) else [f"{prefix}{name}"]
    return found


def _hint(mistake: Mistake) -> str:
    """What YAML made of what was probably meant; empty where nothing can be guessed."""
    kind, value = mistake.kind, mistake.value
    numbers = {int, float} & {kind, *get_args(kind)}
    if kind is str and isinstance(value, (bool, int, float)):
        return ": quote it"
    if numbers and isinstance(value, str):
        power = POWER.match(value)
        if power:
            whole, fraction, sign, exponent = power.groups()
            number = f"{whole}{fraction or '.0'}e{sign or '+'}{exponent}"
            return f": without a point and a sign YAML reads a text; write {number}"
        return ": leave the quotes away" if NUMBER.match(value) else ""
    if get_origin(kind) is tuple and isinstance(value, str):
        return f": write [{', '.join(value.split())}]"
    return ""


def _problems(spec: Spec) -> list[str]:
    found = []
    if not spec.command or not all(spec.command[:1]):
        found.append("command is empty: give the program and its arguments as a list")
    if not spec.instance_types and not spec.instance_requirements.stated:
        found.append("instance_types is empty: name at least one, such as g5.xlarge, or give instance_requirements")
    if spec.instance_types and spec.instance_requirements.stated:
        found.append("instance_types and instance_requirements exclude each other")
    found += problems(spec.instance_requirements)
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
    if spec.image and spec.own_machines is not OwnMachines.NEVER:
        found.append("image and own_machines exclude each other: hosts run code bundles, not containers")
    if spec.nodes > 1 and spec.own_machines is not OwnMachines.NEVER:
        found.append(
            f"nodes and own_machines exclude each other: a host trains alone, and nodes asks for {spec.nodes} machines"
        )
    if spec.own_kinds and spec.own_machines is OwnMachines.NEVER:
        found.append("own_kinds says which hosts will do, and own_machines that none is asked: set it to first or last")
    if spec.image and spec.code_key:
        found.append("code and image exclude each other")
    return found + _gang_problems(spec) + _limit_problems(spec) + _market_problems(spec)


def _gang_problems(spec: Spec) -> list[str]:
    found = []
    if spec.nodes > spec.limits.max_launches > 0:
        found.append(
            "nodes is above limits.max_launches, which counts machines: not even one attempt could be launched"
        )
    if not 0 <= spec.reunion_s <= LONGEST_REUNION_S:
        found.append(f"reunion_s must be from 0 to {LONGEST_REUNION_S:g}: machines that wait are paid for")
    if spec.placement_group and not PLACEMENT_GROUP.match(spec.placement_group):
        found.append(f"placement_group: {spec.placement_group!r} is no name of one")
    if spec.placement_group and spec.nodes == 1:
        found.append("placement_group is for nodes that train together: with one node leave it out")
    return found


def _market_problems(spec: Spec) -> list[str]:
    """What does not go together in the rules for on-demand and the deadline, and reservations that cannot be."""
    found = [
        f"capacity_reservations: {each.id!r} needs an id (cr-…), a zone and an instance_type"
        for each in spec.capacity_reservations
        if not (RESERVATION_ID.match(each.id) and ZONE.match(each.zone) and INSTANCE_TYPE.match(each.instance_type))
    ]
    only = {
        "on_demand_after_s": spec.on_demand_after_s is not None,
        "on_demand_after_losses": spec.on_demand_after_losses is not None,
        "deadline": bool(spec.deadline) or spec.deadline_hours is not None,
    }
    found += [f"{name} needs on_demand: true" for name, set_ in only.items() if set_ and not spec.on_demand]
    if spec.on_demand_after_s is not None and not 0 <= spec.on_demand_after_s <= MOST_HOURS * 3600:
        found.append(f"on_demand_after_s must be from 0 to {MOST_HOURS * 3600}")
    if spec.deadline and spec.deadline_hours is not None:
        found.append("deadline and deadline_hours exclude each other")
    try:
        aware = not spec.deadline or datetime.fromisoformat(spec.deadline).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        found.append(f"deadline: {spec.deadline!r} is no time with an offset, such as 2026-11-30T18:00:00+01:00")
    if spec.deadline_hours is not None and spec.deadline_hours > spec.limits.max_hours:
        found.append("deadline_hours is beyond limits.max_hours, which would end the run first")
    return found


def _limit_problems(spec: Spec) -> list[str]:
    found = []
    limits, cadence, health = spec.limits, spec.cadence, spec.health
    bounds: dict[str, tuple[float | None, float | None]] = {  # value, and the most that it may be
        "limits.max_launches": (limits.max_launches, MOST_LAUNCHES),
        "limits.max_failures": (limits.max_failures, None),
        "limits.max_hours": (limits.max_hours, MOST_HOURS),
        "limits.max_dollars": (limits.max_dollars, MOST_DOLLARS),
        "cadence.floor_s": (cadence.floor_s, LONGEST_INTERVAL_S),
        "cadence.ceiling_s": (cadence.ceiling_s, LONGEST_INTERVAL_S),
        "cadence.every_s": (cadence.every_s, LONGEST_INTERVAL_S),
        "cadence.every_steps": (cadence.every_steps, None),
        "health.bad_steps": (health.bad_steps, None),
        "health.suspect_steps": (health.suspect_steps, MOST_SUSPECT_STEPS),
        "health.max_rollbacks": (health.max_rollbacks, MOST_ROLLBACKS),
        "health.window_steps": (health.window_steps, None),
        "nodes": (spec.nodes, MOST_NODES),
        "keep.newest": (spec.keep.newest, MOST_KEPT),
        "on_demand_after_losses": (spec.on_demand_after_losses, MOST_LAUNCHES),
        "losses_within_s": (spec.losses_within_s, MOST_HOURS * 3600),
        "deadline_hours": (spec.deadline_hours, MOST_HOURS),
        "total_steps": (spec.total_steps, None),
        "training_hours": (spec.training_hours, MOST_HOURS),
        "hang_minutes": (spec.hang_minutes or None, LONGEST_INTERVAL_S / 60),
        "keep_failed_minutes": (spec.keep_failed_minutes or None, LONGEST_KEPT_MINUTES),
        "keep.every_steps": (spec.keep.every_steps, None),
        **{f"limits.on_demand_prices.{kind}": (price, None) for kind, price in limits.on_demand_prices.items()},
    }
    for name, (value, most) in bounds.items():
        found += [] if value is None else _bound_problems(name, value, most)
    missing = [kind for kind in spec.instance_types if kind not in limits.on_demand_prices]
    if spec.on_demand and limits.max_dollars is not None and missing:
        found.append(
            "on_demand with limits.max_dollars needs limits.on_demand_prices for every type, since EC2 tells no "
            f"on-demand price; missing: {', '.join(missing)}"
        )
    if cadence.floor_s > cadence.ceiling_s:
        found.append("cadence.floor_s is above cadence.ceiling_s")
    if cadence.every_s is not None and cadence.every_steps is not None:
        found.append("cadence: every_s and every_steps exclude each other")
    return found


def _bound_problems(name: str, value: float, most: float | None) -> list[str]:
    if not isinstance(value, int) and not isfinite(value):
        return [f"{name} must be a finite number"]
    if not value > 0:
        return [f"{name} must be above zero"]
    return [f"{name} must not be above {most:g}"] if most is not None and value > most else []
