"""When a checkpoint is called good: once the steps that followed it stayed healthy, and the next judgement too."""

from __future__ import annotations

from spotrelay.core.checkpoint import CheckpointId, Commit, Health, unpromotable
from spotrelay.core.health import Judgement

PROBATION_STEPS = 10  # that have to follow in good health
MOST_WAITING = 64  # checkpoints on probation; with one after each step the oldest is promoted long before


class Probation:
    """The committed checkpoints of an attempt that may still be promoted."""

    def __init__(self) -> None:
        self._waiting: list[Commit] = []

    def see(self, judgement: Judgement) -> None:
        """Take note of a step: one in bad health speaks against everything before it that is not promoted yet."""
        if judgement.health is not Health.HEALTHY:
            self._waiting.clear()

    def admit(self, commit: Commit) -> None:
        """Watch a checkpoint from now on, if it can ever be promoted: one that was resumed from, say."""
        if not unpromotable(commit):
            self._waiting = [*self._waiting, commit][-MOST_WAITING:]

    def committed(self, commit: Commit) -> CheckpointId | None:
        """The newest checkpoint that this next one shows to be good. It is returned once, and then no older one.

        Args:
            commit: of the next checkpoint, with its own judgement.
        """
        if commit.health is not Health.HEALTHY:
            self._waiting.clear()
            return None
        proven = [each for each in self._waiting if commit.step - each.step >= PROBATION_STEPS]
        self._waiting = [each for each in self._waiting if each not in proven]
        self.admit(commit)
        return max((each.id for each in proven), default=None)
