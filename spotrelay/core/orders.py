"""The request of one launch on a host. Pure: the control plane prepares it, the function with the keys sends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spotrelay.core.codec import from_json, to_json
from spotrelay.core.errors import InvalidInput
from spotrelay.core.hosts import is_host
from spotrelay.core.placement import Pool, Rung


def prepare(run_id: str, generation: int, launch: int, rung: Rung) -> dict[str, Any]:
    """The request with the host it goes to; JSON through and through.

    Raises:
        InvalidInput: the rung is not one host: a launch with no clear answer must not try a second one.
    """
    if rung.nodes != 1 or len(rung.pools) != 1 or not is_host(rung.pools[0].region):
        raise InvalidInput(f"run {run_id}: a launch on a host goes to one host, not to {rung.pools}")
    return {
        "Region": rung.pools[0].region,
        "Pools": [to_json(rung.pools[0])],
        "Token": f"{run_id}.{generation}.{launch}",
        "RunId": run_id,
        "Generation": generation,
        "Launch": launch,
    }


def pool_of(request: Mapping[str, Any]) -> Pool:
    """The host's pool that a request speaks of."""
    return from_json(tuple[Pool, ...], request["Pools"], "the pools of a launch request")[0]
