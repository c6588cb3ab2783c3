"""What the run's program finds in its environment."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from spotrelay import __version__
from spotrelay.instance.identity import Identity

LOWEST_PORT, PORTS = 20_000, 10_000  # where a gang's machines may meet
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
        "SPOTRELAY_VERSION": __version__,
        "AWS_REGION": me.region,
        "AWS_DEFAULT_REGION": me.region,
    }


def meeting_environment(me: Identity, address: str) -> dict[str, str]:
    """What a program on one of a gang's machines needs to meet the others; nothing with one machine.

    The names that torch.distributed reads, and `PET_…`, which torchrun takes for its own options.
    """
    if me.nodes == 1:
        return {}
    port = str(meeting_port(me.run_id, me.generation))
    nodes, rank = str(me.nodes), str(me.node)
    return {
        "SPOTRELAY_NODES": nodes,
        "SPOTRELAY_NODE_RANK": rank,
        "SPOTRELAY_ADDRESS": me.address,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
        "NNODES": nodes,
        "NODE_RANK": rank,
        "PET_NNODES": nodes,
        "PET_NODE_RANK": rank,
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": port,
    }


def meeting_port(run_id: str, generation: int) -> int:
    """A port of the attempt's own, below those that are handed out: nobody meets an attempt's zombie there."""
    return LOWEST_PORT + crc32(f"{run_id}.{generation}".encode()) % PORTS


def program_environment(
    machine: Mapping[str, str], me: Identity, given: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """The machine's own variables, then the spec's, then the resolved secrets, then ours."""
    base = {name: value for name, value in machine.items() if name not in PRIVATE}
    base.setdefault("PYTHONUNBUFFERED", "1")  # so that the log shows a line when it is printed
    return {**base, **given, **secrets, **own_environment(me)}
