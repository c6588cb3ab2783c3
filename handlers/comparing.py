"""Looks for a checkpoint in replicas of the bucket, by the very comparison that judges it at home."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.control import ControlPlane
from handlers.verify import verify
from spotrelay.core.decisions import Compare
from spotrelay.core.errors import SpotrelayError
from spotrelay.core.facts import Compared


def looked_for(decision: Compare, plane: ControlPlane) -> Iterator[Compared]:
    """What each of these replicas has of the checkpoint. Never a verdict on it, and nothing that anyone waits for."""
    name = str(decision.checkpoint.id)
    for region, _ in decision.replicas:
        try:
            verdict = verify(decision.checkpoint.commit, plane.replicas[region], plane.clock.now())
        except SpotrelayError as error:
            plane.telemetry.warning("a replica was not compared", region=region, checkpoint=name, cause=str(error))
            yield Compared(region, name, False, f"it could not be asked: {error}")
            continue
        yield Compared(region, name, verdict.ok, verdict.problem)
