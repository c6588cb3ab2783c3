"""What the run's program finds in its environment."""

from __future__ import annotations

from collections.abc import Mapping

from spotrelay.instance.identity import Identity

PRIVATE = frozenset({"SPOTRELAY_WORK", "SPOTRELAY_LAUNCH", "SPOTRELAY_STACK"})  # between resume script and agent


def own_environment(me: Identity) -> dict[str, str]:
    """The variables by which the shim knows its run; a run's spec cannot set these."""
    return {
        "SPOTRELAY_RUN": me.run_id,
        "SPOTRELAY_GENERATION": str(me.generation),
        "SPOTRELAY_INSTANCE": me.instance_id,
        "SPOTRELAY_TABLE": me.table,
        "SPOTRELAY_BUCKET": me.bucket,
        "SPOTRELAY_BUS": me.bus,
        "SPOTRELAY_HOME_REGION": me.home_region,
        "SPOTRELAY_TIME_SCALE": repr(me.time_scale),
        "SPOTRELAY_CACHE": str(me.cache),
        "SPOTRELAY_STATE": str(me.state),
        "AWS_REGION": me.region,
        "AWS_DEFAULT_REGION": me.region,
    }


def program_environment(
    machine: Mapping[str, str], me: Identity, given: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """The machine's own variables, then the spec's, then the resolved secrets, then ours."""
    base = {name: value for name, value in machine.items() if name not in PRIVATE}
    base.setdefault("PYTHONUNBUFFERED", "1")  # so that the log shows a line when it is printed
    return {**base, **given, **secrets, **own_environment(me)}
