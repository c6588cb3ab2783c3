"""What the Lambda functions are told from outside: names of environment variables and metrics.

The stack imports the names from here, so they exist once. Reading happens in `read_settings`,
never at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spotrelay.aws.places import Places, parse_places
from spotrelay.core.codec import from_json, strict_json
from spotrelay.core.errors import InvalidInput
from spotrelay.core.line import LAUNCHES_A_SECOND
from spotrelay.core.scoring import Transfer

TABLE = "SPOTRELAY_TABLE"
BUCKET = "SPOTRELAY_BUCKET"
BUS = "SPOTRELAY_BUS"  # name of the home bus
STACK = "SPOTRELAY_STACK"
HOME_REGION = "SPOTRELAY_HOME_REGION"
PLACES = "SPOTRELAY_PLACES"  # JSON: region to launch template, version and subnets by zone
REPLICAS = "SPOTRELAY_REPLICAS"  # JSON: region to the copy of the bucket there; unset: there is none
SWITCH = "SPOTRELAY_SWITCH"  # name of the SSM parameter that stops every launch
RUNS_QUEUE = "SPOTRELAY_RUNS_QUEUE"  # URL; where the sweep puts runs that are due
LAUNCH_RATE = "SPOTRELAY_LAUNCH_RATE"  # launches a second that EC2 takes in one region once it throttles
PLACEMENT_SCORES = "SPOTRELAY_PLACEMENT_SCORES"  # "on": EC2 is asked for them, rarely; else never
TRANSFER_PRICE = "SPOTRELAY_TRANSFER_PRICE"  # dollars for a GiB from the bucket's region into another one
HOSTS_FUNCTION = "SPOTRELAY_HOSTS_FUNCTION"  # name; the one that reaches hosts of one's own
HOST_ROLE = "SPOTRELAY_HOST_ROLE"  # ARN; what machines on hosts get sessions of
AGENT_BUCKET = "SPOTRELAY_AGENT_BUCKET"
AGENT_KEY = "SPOTRELAY_AGENT_KEY"
AGENT_SHA256 = "SPOTRELAY_AGENT_SHA256"
TIME_SCALE = "SPOTRELAY_TIME_SCALE"  # factor on every waiting time; 1 in production

DAY_DOLLARS = "SPOTRELAY_DAY_DOLLARS"  # what all machines of the stack may cost in a day; "none": not counted

ON, OFF = "on", "off"

REQUIRED = (TABLE, BUCKET, BUS, STACK, HOME_REGION, PLACES, SWITCH)

METRICS_NAMESPACE = "Spotrelay"
SERVICE_DIMENSION = "service"  # its value is the stack's name, in every metric below

QUARANTINED = "EventsQuarantined"  # malformed events; alarmed: each is in the log with its bytes
RECEIVED = "EventsReceived"
UNKNOWN_KIND = "EventsOfUnknownKind"
NOT_OURS = "EventsOfOtherInstances"
UNCONCERNED = "CapacityEventsWithoutRun"
DECISION = "Decision"  # prefix: DecisionReserve, DecisionSend, DecisionWait …
EVENT_TO_LAUNCH = "EventToLaunch"  # milliseconds from a record's entry into the function to the call of EC2
LOST_RACES = "LostRaces"
POSTPONED = "ActsPostponed"  # a service did not answer; the sweep tries again
TERMINATE_FAILED = "TerminationsRefused"  # EC2 did not end a machine; asked again later
COLLECTED = "ObjectsCollected"  # deleted from the bucket, since no checkpoint names them
COLLECTIONS_POSTPONED = "CollectionsPostponed"  # S3 or the table did not answer; tried again later
CHECKPOINTS_OVERDUE = "CheckpointsOverdue"  # alarmed: looks at runs that train without a new verified checkpoint
NO_PROGRESS = "RunsWithoutProgress"  # alarmed: looks at runs whose program shows life and gets nowhere
MACHINES_TOO_MANY = "MachinesTooMany"  # alarmed: looks at machines that live beside the one that should
HOSTS_OUT_OF_REACH = "HostsOutOfReach"  # looks at hosts of one's own that gave no answer; a box may be switched off
DUE_RUNS = "RunsDue"
ORPHANS_ADOPTED = "OrphansAdopted"
ORPHANS_TERMINATED = "OrphansTerminated"  # alarmed: a machine that no run knew was running
SWEEP_FAILURES = "SweepStepsFailed"  # alarmed
MONEY_REFUSED = "MoneyRefused"  # alarmed: the account's budget of the day had no room for a machine
SCORES_ASKED = "PlacementScoresAsked"  # questions to EC2, each set of types once an hour at most
SPEND_RATE = "SpendRateCents"  # cents an hour that machines cost, told by each sweep; alarmed where a bound is set
LAUNCHES_STOPPED = "LaunchesStoppedBySwitch"
LAUNCHES_POSTPONED = "LaunchesPostponed"  # beyond EC2's rate; they go in their turn


@dataclass(frozen=True)
class Settings:
    """The environment of a function, checked."""

    table: str
    bucket: str
    bus: str
    stack: str
    home_region: str
    places: Places  # the home region first
    switch: str
    runs_queue: str = ""  # empty: the sweep answers due runs itself
    time_scale: float = 1.0
    launch_rate: float = LAUNCHES_A_SECOND
    transfer_price: float = Transfer.dollars_per_gib
    day_dollars: float | None = None
    placement_scores: bool = False
    replicas: Mapping[str, str] = field(default_factory=dict)  # region to bucket
    hosts_function: str = ""  # empty: this function reaches no host


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in these variables.

    Raises:
        InvalidInput: names every variable that is missing, or the one that cannot be read. The
            function was deployed wrongly: deploy the stack again.
    """
    missing = [name for name in REQUIRED if not environment.get(name)]
    if missing:
        raise InvalidInput(f"not set in the environment: {', '.join(missing)}. Deploy the stack again")
    return Settings(
        table=environment[TABLE],
        bucket=environment[BUCKET],
        bus=environment[BUS],
        stack=environment[STACK],
        home_region=environment[HOME_REGION],
        places=_places(environment[PLACES], environment[HOME_REGION]),
        switch=environment[SWITCH],
        runs_queue=environment.get(RUNS_QUEUE, ""),
        time_scale=_factor(TIME_SCALE, environment.get(TIME_SCALE) or "1"),
        transfer_price=_factor(TRANSFER_PRICE, environment.get(TRANSFER_PRICE) or str(Transfer.dollars_per_gib)),
        launch_rate=_factor(LAUNCH_RATE, environment.get(LAUNCH_RATE) or str(LAUNCHES_A_SECOND)),
        day_dollars=_dollars(DAY_DOLLARS, environment.get(DAY_DOLLARS, "")),
        placement_scores=environment.get(PLACEMENT_SCORES) == ON,
        replicas=_replicas(environment.get(REPLICAS) or "{}"),
        hosts_function=environment.get(HOSTS_FUNCTION, ""),
    )


def _places(text: str, home_region: str) -> Places:
    regions = parse_places(text).regions
    if not regions:
        raise InvalidInput(f"{PLACES} names no region: a run could be launched nowhere")
    return Places({region: regions[region] for region in sorted(regions, key=lambda r: (r != home_region, r))})


def _replicas(text: str) -> dict[str, str]:
    try:
        return from_json(dict[str, str], strict_json(text), REPLICAS)
    except ValueError as error:
        raise InvalidInput(f"{REPLICAS} cannot be read: {error}. Deploy the stack again") from error


def _factor(name: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: {text!r} is not a number") from error
    if not 0 < factor <= 1000:
        raise InvalidInput(f"{name}: {text} is not above zero and at most 1000")
    return factor


def _dollars(name: str, text: str) -> float | None:
    if text in ("", "none"):
        return None
    try:
        amount = float(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: {text!r} is no amount of dollars") from error
    if not 0 <= amount <= 1e9:
        raise InvalidInput(f"{name}: {text} is no amount of dollars")
    return amount
