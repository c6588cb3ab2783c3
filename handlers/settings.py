"""What the Lambda functions are told from outside: names of environment variables and metrics.

The stack imports the names from here, so they exist once. Reading happens in `read_settings`,
never at import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from spotrelay.core.codec import from_json
from spotrelay.core.errors import InvalidInput

TABLE = "SPOTRELAY_TABLE"
BUCKET = "SPOTRELAY_BUCKET"
BUS = "SPOTRELAY_BUS"  # name of the home bus
STACK = "SPOTRELAY_STACK"
HOME_REGION = "SPOTRELAY_HOME_REGION"
PLACES = "SPOTRELAY_PLACES"  # JSON: region to launch template, version and subnets by zone
SWITCH = "SPOTRELAY_SWITCH"  # name of the SSM parameter that stops every launch
RUNS_QUEUE = "SPOTRELAY_RUNS_QUEUE"  # URL; where the sweep puts runs that are due
TIME_SCALE = "SPOTRELAY_TIME_SCALE"  # factor on every waiting time; 1 in production

REQUIRED = (TABLE, BUCKET, BUS, STACK, HOME_REGION, PLACES, SWITCH)

METRICS_NAMESPACE = "Spotrelay"
SERVICE_DIMENSION = "service"  # its value is the stack's name, in every metric below

QUARANTINED = "EventsQuarantined"  # malformed events; alarmed: each is in the log with its bytes
UNKNOWN_KIND = "EventsOfUnknownKind"
NOT_OURS = "EventsOfOtherInstances"
UNCONCERNED = "CapacityEventsWithoutRun"
DECISIONS = "Decisions"  # by the dimension of the same name
DECISION_DIMENSION = "decision"
EVENT_TO_LAUNCH = "EventToLaunch"  # milliseconds from a record's entry into the handler to the call of EC2
LOST_RACES = "LostRaces"
DUE_RUNS = "RunsDue"
ORPHANS_ADOPTED = "OrphansAdopted"
ORPHANS_TERMINATED = "OrphansTerminated"  # alarmed: a machine that no run knew was running
SWEEP_FAILURES = "SweepStepsFailed"  # alarmed
LAUNCHES_STOPPED = "LaunchesStoppedBySwitch"


@dataclass(frozen=True)
class Place:
    """Where machines can be launched in one region."""

    launch_template: str
    version: str
    subnets: dict[str, str]  # zone to subnet id


@dataclass(frozen=True)
class Settings:
    """The environment of a function, checked."""

    table: str
    bucket: str
    bus: str
    stack: str
    home_region: str
    places: dict[str, Place]  # by region
    switch: str
    runs_queue: str = ""  # empty: the sweep answers due runs itself
    time_scale: float = 1.0

    @property
    def zones(self) -> tuple[tuple[str, str], ...]:
        """(region, zone) of every subnet, the home region first."""
        regions = sorted(self.places, key=lambda region: (region != self.home_region, region))
        return tuple((region, zone) for region in regions for zone in sorted(self.places[region].subnets))


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
        places=_places(environment[PLACES]),
        switch=environment[SWITCH],
        runs_queue=environment.get(RUNS_QUEUE, ""),
        time_scale=_time_scale(environment.get(TIME_SCALE) or "1"),
    )


def _places(text: str) -> dict[str, Place]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{PLACES} is not JSON: {error}") from error
    if not isinstance(value, dict) or not value:
        raise InvalidInput(f"{PLACES}: a mapping of at least one region was expected")
    return {region: from_json(Place, place, f"{PLACES}.{region}") for region, place in value.items()}


def _time_scale(text: str) -> float:
    try:
        factor = float(text)
    except ValueError as error:
        raise InvalidInput(f"{TIME_SCALE}: {text!r} is not a number") from error
    if not 0 < factor <= 1000:
        raise InvalidInput(f"{TIME_SCALE}: {text} is not above zero and at most 1000")
    return factor
