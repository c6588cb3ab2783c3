"""Who this process is, as the agent on its machine told it through the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spotrelay.core.clockwork import Timings
from spotrelay.core.errors import InvalidInput
from spotrelay.core.spec import checked_run_id

METADATA = "http://169.254.169.254"
REQUIRED = ("SPOTRELAY_GENERATION", "SPOTRELAY_INSTANCE", "SPOTRELAY_TABLE", "SPOTRELAY_BUCKET", "SPOTRELAY_BUS")


@dataclass(frozen=True)
class Identity:
    """One attempt of one run, on one machine."""

    run_id: str
    generation: int
    instance_id: str  # the holder of the lease
    table: str
    bucket: str
    bus: str
    region: str  # of the table, the bucket and the bus
    time_scale: float = 1.0
    cache: Path | None = None  # shards that the agent fetched while Python was starting
    state: Path | None = None  # where the agent looks for a sign of us
    metadata: str | None = METADATA  # the machine's metadata service; None: there is none
    nodes: int = 1  # machines of the attempt
    address: str = ""  # of this machine, for the others
    stack_version: str = ""  # of Spotrelay; empty: the agent did not say
    here: str = ""  # region of this machine, in which there may be a copy of the bucket

    @property
    def timings(self) -> Timings:
        """Every waiting time, scaled."""
        return Timings().scaled(self.time_scale)


def read_identity(environ: Mapping[str, str]) -> Identity | None:
    """The identity in an environment; None outside Spotrelay.

    Raises:
        InvalidInput: Spotrelay's variables are there in part, or hold impossible values.
    """
    if not environ.get("SPOTRELAY_RUN"):
        return None
    region = environ.get("SPOTRELAY_HOME_REGION") or environ.get("AWS_REGION", "")
    missing = [name for name in REQUIRED if not environ.get(name)] + ([] if region else ["SPOTRELAY_HOME_REGION"])
    if missing:
        raise InvalidInput(
            f"SPOTRELAY_RUN is set, and {', '.join(missing)} is not: this process was not started by the agent. "
            "To train without Spotrelay, unset SPOTRELAY_RUN"
        )
    generation, scale = environ["SPOTRELAY_GENERATION"], environ.get("SPOTRELAY_TIME_SCALE") or "1"
    nodes = environ.get("SPOTRELAY_NODES") or "1"
    try:
        numbers = int(generation), float(scale), int(nodes)
    except ValueError as error:
        raise InvalidInput(
            f"SPOTRELAY_GENERATION={generation!r}, SPOTRELAY_TIME_SCALE={scale!r} or SPOTRELAY_NODES={nodes!r} is no "
            "number"
        ) from error
    return Identity(
        checked_run_id(environ["SPOTRELAY_RUN"]),
        numbers[0],
        environ["SPOTRELAY_INSTANCE"],
        environ["SPOTRELAY_TABLE"],
        environ["SPOTRELAY_BUCKET"],
        environ["SPOTRELAY_BUS"],
        region,
        numbers[1],
        _folder(environ.get("SPOTRELAY_CACHE")),
        _folder(environ.get("SPOTRELAY_STATE")),
        _metadata(environ),
        numbers[2],
        environ.get("SPOTRELAY_ADDRESS", ""),
        environ.get("SPOTRELAY_VERSION", ""),
        environ.get("AWS_REGION", ""),
    )


def _folder(text: str | None) -> Path | None:
    return Path(text) if text else None


def _metadata(environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    return (environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA).rstrip("/")
