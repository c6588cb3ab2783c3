"""Who this machine is: what the resume script learned and handed over in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import InvalidInput
from spotrelay.core.notice import checked_instance_id
from spotrelay.core.spec import checked_run_id

REQUIRED = (
    "SPOTRELAY_RUN",
    "SPOTRELAY_GENERATION",
    "SPOTRELAY_INSTANCE",
    "SPOTRELAY_TABLE",
    "SPOTRELAY_BUCKET",
    "SPOTRELAY_BUS",
    "SPOTRELAY_HOME_REGION",
    "SPOTRELAY_WORK",
    "AWS_REGION",
)


@dataclass(frozen=True)
class Identity:
    """One attempt on one machine, and where its run's rows and objects are."""

    run_id: str
    generation: int  # starts at 1
    instance_id: str
    table: str
    bucket: str
    bus: str
    home_region: str  # where table, bucket, bus and secrets are
    region: str  # where this machine is
    work: Path  # this machine's own folder
    time_scale: float = 1.0
    node: int = 0  # rank of this machine in its gang; as the run's row says
    nodes: int = 1  # machines of the attempt
    address: str = ""  # at which the others reach this machine; of a gang only
    host: str = ""  # one's own, that this machine is on; empty: it is EC2's

    @property
    def cache(self) -> Path:
        """Prefetched objects, by the last part of their key."""
        return self.work / "cache"

    @property
    def state(self) -> Path:
        """Where the shim leaves word for the agent."""
        return self.work / "state"

    @property
    def code(self) -> Path:
        """Where the code bundle is unpacked; setup and command start here."""
        return self.work / "code"

    @property
    def timings(self) -> Timings:
        """Every waiting time, at this run's scale."""
        return Timings().scaled(self.time_scale)


def read_identity(environ: Mapping[str, str]) -> Identity:
    """The identity in an environment.

    Raises:
        InvalidInput: names everything that is missing or wrong; the machine cannot know its run.
    """
    missing = [name for name in REQUIRED if not environ.get(name)]
    if missing:
        raise InvalidInput(f"the resume script did not set {', '.join(missing)}: is this a machine of a Spotrelay run?")
    return Identity(
        run_id=checked_run_id(environ["SPOTRELAY_RUN"]),
        generation=_generation(environ["SPOTRELAY_GENERATION"]),
        instance_id=checked_instance_id(environ["SPOTRELAY_INSTANCE"]),
        table=environ["SPOTRELAY_TABLE"],
        bucket=environ["SPOTRELAY_BUCKET"],
        bus=environ["SPOTRELAY_BUS"],
        home_region=environ["SPOTRELAY_HOME_REGION"],
        region=environ["AWS_REGION"],
        work=Path(environ["SPOTRELAY_WORK"]),
        time_scale=_scale(environ.get("SPOTRELAY_TIME_SCALE") or "1"),
        host=environ.get("SPOTRELAY_ON_HOST", ""),
    )


def _generation(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise InvalidInput(f"SPOTRELAY_GENERATION: {text!r} is no attempt's number (1 to 999999)")
    return int(text)


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale < 1000:
        raise InvalidInput(f"SPOTRELAY_TIME_SCALE: {text!r} is no factor for times; 1 is real time")
    return scale
