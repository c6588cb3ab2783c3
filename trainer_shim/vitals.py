"""The health of one attempt: its losses, its gradients, the script's own word, and what follows from them."""

from __future__ import annotations

import math

from spotrelay.core.checkpoint import CheckpointId, Commit, Health, Manifest, Rollback
from spotrelay.core.health import Divergence, Judgement, LossBand, worst
from spotrelay.core.promotion import Probation
from spotrelay.core.spec import HealthRules
from trainer_shim.checking import Check


class Vitals:
    """Sees every step and judges every checkpoint."""

    def __init__(self, rules: HealthRules | None = None, check: Check | None = None) -> None:
        self.rules = rules or HealthRules()
        self.diverged = ""  # why the run counts as diverged
        self.rollbacks: tuple[Rollback, ...] = ()  # of the run, as far as its rules count them
        self.back_to = ""  # id of the checkpoint that was rolled back to, until a newer one is committed
        self.ill = False  # whether a step was not in good health, until the other ranks have heard of it
        self._check = check
        self._band = LossBand()
        self._gradients = Judgement(Health.HEALTHY)  # as the script told of them
        self._divergence = Divergence(self.rules)
        self._probation = Probation()

    @property
    def losses(self) -> tuple[float, ...]:
        """The band of recent losses."""
        return tuple(self._band.losses())

    def recall(self, manifest: Manifest) -> None:
        """Go on with what an earlier checkpoint knew."""
        self._band.recall(manifest.losses)
        self._gradients = Judgement(Health.HEALTHY)
        self._divergence.forget()
        self.diverged, self.ill = "", False
        if not self.rollbacks:
            self.rollbacks = manifest.rollbacks

    def see(self, step: int, loss: float | None, norm: float | None) -> None:
        """Take note of a finished step.

        Args:
            norm: of the gradients, if the script tells it.
        """
        if loss is not None:
            self._band.see(step, loss)
        if norm is not None:
            finite = math.isfinite(norm)
            told = f"the norm of the gradients of step {step} is {norm}"
            self._gradients = Judgement(Health.HEALTHY) if finite else Judgement(Health.BAD, told)
        judgement = worst([self._band.judge(), self._gradients])
        self._probation.see(judgement)
        self.ill = self.ill or judgement.health is not Health.HEALTHY
        self.diverged = self._divergence.see(step, judgement) or self.diverged  # until it is acted upon

    def hear(self, ill: bool) -> None:
        """Take note of what the other ranks say of a step: in bad health on one of them is in bad health."""
        if ill:
            self._probation.see(Judgement(Health.SUSPECT, "another rank's"))

    def judge(self, step: int, gradients: str, ask: bool) -> Judgement:
        """The state after this step, before its arrays are looked at.

        Args:
            gradients: what was found wrong with them. Parameters that stayed finite beside them make the state
                no worse than suspect: the script has skipped that step.
            ask: whether the script's own check may be asked, which takes time.
        """
        found = gradients or self._gradients.reason
        said = [self._check.judge(step)] if ask and self._check is not None else []
        skipped = [Judgement(Health.SUSPECT, found)] if found else []
        return worst([self._band.judge(), *said, *skipped])

    def resumed(self, commit: Commit) -> None:
        """Watch the checkpoint that this attempt goes on from: the steps after it are still to come."""
        self._probation.admit(commit)

    def committed(self, commit: Commit) -> CheckpointId | None:
        """Take note of a checkpoint; the one that it shows to be good, if there is one.

        One that was taken before a rollback and is committed only after it tells nothing of the state since.
        """
        if self.back_to and commit.back_to != self.back_to:
            return None
        self.back_to = ""
        return self._probation.committed(commit)

    def may_roll_back(self, step: int) -> bool:
        """Whether the rules allow another rollback now."""
        recent = [each for each in self.rollbacks if step - each.step < self.rules.window_steps]
        return len(recent) < self.rules.max_rollbacks

    def rolled_back(self, rollback: Rollback, manifest: Manifest) -> None:
        """Begin again from what that checkpoint knew."""
        self.recall(manifest)
        self._probation = Probation()
        self.rollbacks = (*self.rollbacks, rollback)[-self.rules.max_rollbacks :]
        self.back_to = rollback.checkpoint
