"""What was last found of a run's newest checkpoint in another region's copy of the bucket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spotrelay.core.checkpoint import CheckpointId


@dataclass(frozen=True)
class Replica:
    """One look at one region's replica. It says nothing about the checkpoint itself, which lies at home."""

    region: str
    bucket: str
    checkpoint: str  # id of the one that was looked for
    complete: bool = False  # all of it was there, as the manifest says
    problem: str = ""  # what was not, or why nobody knows
    checked_at: datetime | None = None  # by the control plane's clock
    looks: int = 0  # in a row at this checkpoint that did not find it complete
    told: int = 0  # generation of the newest attempt whose timeline says so

    def holds(self, checkpoint: CheckpointId) -> bool:
        """Whether this checkpoint was found complete there."""
        return self.complete and self.checkpoint == str(checkpoint)

    def is_stale(self, recheck_after: datetime | None) -> bool:
        """Whether a machine was lost since: then it is looked for again first."""
        return recheck_after is not None and (self.checked_at is None or self.checked_at <= recheck_after)
