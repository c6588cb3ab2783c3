"""A training process as the protocol sees it: beats, takes the lease, saves in two moves, drains."""

from __future__ import annotations

from dataclasses import dataclass, field

from spotrelay.core.checkpoint import Commit, awaiting_verification, resume_candidate
from spotrelay.core.errors import Fenced, LeaseHeld, SpotrelayError
from spotrelay.core.live import EXIT_DRAINED, ExitReport, Heartbeat, Phase
from spotrelay.core.ports import LiveStore
from spotrelay.testing import MemoryObjects
from tests.handlers.checkpoints import put_checkpoint


@dataclass(repr=False)
class Trainer:
    """The program of one attempt on one machine. Each method is one indivisible move of it."""

    run_id: str
    generation: int
    instance_id: str
    store: LiveStore = field(repr=False)
    objects: MemoryObjects = field(repr=False)
    step: int = 0
    save: int = 0
    counter: int = 0
    phase: Phase = Phase.BOOT
    resumed_from: int | None = None
    resumed_checkpoint: str = ""
    trained: bool = False
    uploaded: Commit | None = None  # shards and manifest are in S3, the commit was not sent
    asked: str = ""  # by the control plane, in the answer to its newest heartbeat
    told_no: bool = False  # it has been refused and stopped for good
    commits: list[Commit] = field(default_factory=list)  # those that it was told succeeded

    def __repr__(self) -> str:
        return f"<attempt {self.generation}: {self.phase.value}, step {self.step}>"

    @property
    def holds(self) -> bool:
        """Whether it believes that it has the lease."""
        return self.phase in (Phase.TRAINING, Phase.DRAINING)

    def beat(self) -> None:
        """Show life. Failing to do so never stops it."""
        self.counter += 1
        beat = Heartbeat(
            self.run_id,
            self.generation,
            self.counter,
            self.phase,
            self.step,
            resumed_from=self.resumed_from,
            resumed_checkpoint=self.resumed_checkpoint,
            first_step=self.trained,
        )
        try:
            self.asked = self.store.beat(beat)
        except SpotrelayError:
            self.counter -= 1

    def enter(self) -> None:
        """Take the lease and resume from the newest verified checkpoint; wait when it is too early."""
        if self.told_no or self.holds or self.phase is Phase.DRAINED:
            return
        self.phase = Phase.WAITING
        try:
            self.store.take_lease(self.run_id, self.generation, self.instance_id)
        except LeaseHeld:
            return
        except Fenced:
            self.told_no = True
            return
        except SpotrelayError:
            return
        self.resume()

    def resume(self) -> None:
        """Choose what to resume from, once nothing newer awaits its verdict."""
        try:
            run = self.store.read_run(self.run_id)
        except SpotrelayError:
            return
        if awaiting_verification(run.checkpoints):
            return
        chosen = resume_candidate(run.checkpoints)
        if chosen is not None and chosen.is_stale(run.recheck_after):
            return
        if chosen is not None:
            self.step = self.resumed_from = chosen.commit.step
            self.resumed_checkpoint = str(chosen.id)
        self.phase = Phase.TRAINING

    def train(self, steps: int = 1) -> None:
        """Finish steps; nothing in AWS is needed for that."""
        if self.holds and not self.told_no:
            self.step += steps
            self.trained = True

    def upload(self) -> None:
        """Put the shards and the manifest of the state as it is now."""
        if not self.holds or self.told_no or self.uploaded is not None:
            return
        self.save += 1
        body = f"{self.run_id} at step {self.step} by {self.generation}".encode()
        commit, _ = put_checkpoint(
            self.objects, self.run_id, self.generation, self.save, self.step, bodies=(body, body + b"!")
        )
        self.uploaded = commit

    def commit(self) -> None:
        """Send the commit, again if its outcome is not known."""
        if self.uploaded is None or self.told_no:
            return
        try:
            self.store.commit(self.uploaded, self.instance_id)
        except Fenced:
            self.told_no = True
            return
        except SpotrelayError:
            return
        self.commits.append(self.uploaded)
        self.uploaded = None

    def drain(self) -> None:
        """After a notice: a last checkpoint, then the lease is given back and the machine idles."""
        if not self.holds or self.told_no:
            return
        self.upload()
        self.commit()
        try:
            self.store.release_lease(self.run_id, self.generation, self.instance_id)
            self.store.report(ExitReport(self.run_id, self.generation, EXIT_DRAINED, "program"))
        except SpotrelayError:
            return
        self.phase = Phase.DRAINED
