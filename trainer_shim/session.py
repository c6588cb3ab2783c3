"""One attempt from attach to its end: what happens before, between and after the steps."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, NoReturn

from spotrelay.core.cadence import LastSave
from spotrelay.core.checkpoint import SaveReason
from spotrelay.core.errors import Fenced, InvalidInput
from spotrelay.core.lease import Lease
from spotrelay.core.live import ASK_DRAIN, ASK_STACKS, EXIT_DRAINED, EXIT_FENCED, Phase
from trainer_shim.agreement import Agreement, Moment, Word
from trainer_shim.checking import Check
from trainer_shim.checkpointer import Checkpointer, Data
from trainer_shim.departing import EXIT_REFUSED, GOODBYE_S, Departure
from trainer_shim.entry import Ended, Gate, NothingToResume, newest_number, take_lease
from trainer_shim.environment import Identity
from trainer_shim.framework import Framework, Replicas
from trainer_shim.herald import Herald
from trainer_shim.history import costs_of
from trainer_shim.joint import Joint
from trainer_shim.marker import Marker
from trainer_shim.progress import Progress
from trainer_shim.promoting import Promoter
from trainer_shim.pulse import Pulse
from trainer_shim.ranks import Alone, Parted, Ranks
from trainer_shim.restoring import Restored
from trainer_shim.resuming import fit, resume
from trainer_shim.rolling_back import Retreat
from trainer_shim.saving import Flight
from trainer_shim.silence import Silence
from trainer_shim.stacks import show_stacks
from trainer_shim.taking import PLAIN, Wishes
from trainer_shim.team import Team
from trainer_shim.understudy import Understudy
from trainer_shim.views import everything
from trainer_shim.vitals import Vitals
from trainer_shim.voice import say
from trainer_shim.watcher import Ending, Watcher
from trainer_shim.wiring import Ports

LOOK_S = 0.05  # between looks while a save is waited for
LOSS_S = 1.0  # between looks at losses that are still on a device
REST_MOST_S = 10.0  # between two tries to save the last state
STUCK_S = 2.0  # a save that has not ended by then and meets failures is not waited for at the end


class Session:
    """Decides after every step; saves, drains and stops. Knows no framework.

    Where several ranks train together, each has one. Rank 0's holds the lease, beats and commits; whatever
    changes the course of the training is agreed on first, so that all of them do it after the same step.
    """

    def __init__(
        self,
        identity: Identity,
        ports: Ports,
        framework: Framework,
        wishes: Wishes = PLAIN,
        check: Check | None = None,
        ranks: Ranks | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.identity = identity
        self.restored: Restored | None = None
        self._ports = ports
        self._framework = framework
        self._wishes = wishes
        self._pulse = Pulse(ports.store, identity)
        self._team = Team(ranks or Alone())
        self._replicas = replicas  # where several ranks train together
        self._agreement = Agreement(self._team.ranks)
        self._watcher = Watcher(identity, ports.publisher, self._team.ranks.watches)
        self._herald = Herald(ports.publisher, identity, self._team.leads)
        self._marker = Marker(identity.state)
        self._departure = Departure(identity, ports, self._pulse, self._herald, self._watcher, self._marker, self._team)
        self._promoter = Promoter(ports.store, identity)
        self._wanted = everything if replicas is None else replicas.wanted
        self._retreat = Retreat(ports, identity, framework, self._watcher, self._herald, self._team, self._wanted)
        self._check = check
        self._vitals = Vitals()
        self._saver: Checkpointer | None = None
        self._progress = Progress()
        self._silence: Silence | None = None  # until the first step
        self._understudy: Understudy | None = None
        self._rebalance = False
        self._stepped = False
        self._unseen: tuple[int, Any, Any] | None = None  # newest step, its loss and norm, until they are looked at
        self._looked_at = 0.0  # monotonic
        self._saved_step: int | None = None  # of the newest checkpoint known to be committed
        self._fence = ""  # how a commit was refused because another attempt is in place
        self._closed = False

    # the way in

    def enter(self) -> None:
        """Take the lease, then resume from the newest verified checkpoint, if there is one.

        Raises:
            SystemExit: the attempt was replaced, its machine is being taken back, or nothing can be
                resumed; a line says what happened.
            InvalidInput: the checkpoint does not fit the script; names every misfit. Nothing was changed. Or the
                spec asks for rollbacks, which this framework cannot make.
        """
        try:
            self._enter()
        except Parted as error:
            self._leave_alone(error)
        except BaseException:
            if self._saver is not None:
                self._saver.close()
            self._watcher.stop()
            self._pulse.stop()
            raise

    def _enter(self) -> None:
        self._watcher.start()
        self._pulse.listen(self._heed_word)
        gate = Gate(self._ports, self.identity, self._pulse, self._watcher)
        self._pulse.watch_trouble("start", lambda: gate.trouble)
        try:
            lease = self._team.led(Lease, lambda: self._take_over(gate))
            run = gate.call(lambda: self._ports.store.read_run(self.identity.run_id))
            self._vitals = Vitals(run.spec.health, self._check)
            if run.spec.health.rollback:
                self._see_that_rollbacks_can_be_made()
            self.restored = resume(gate, self._framework, self._herald, self._team, self._wanted)
        except Fenced as error:
            self._leave(EXIT_FENCED, f"{error}. This process ends here; the run goes on elsewhere")
        except Ended as error:
            self._drain_unborn(str(error))
        except NothingToResume as error:
            self._leave(EXIT_REFUSED, str(error))
        assert lease is not None
        self._saved_step = self.restored.manifest.step if self.restored is not None else None
        if self.restored is not None:
            self._vitals.recall(self.restored.manifest)
            self._vitals.resumed(self.restored.checkpoint.commit)
        self._saver = Checkpointer(
            self._ports,
            self.identity,
            self._framework,
            run.spec.cadence,
            costs_of(run, self.identity),
            lease.save,
            self._vitals,
            self._wishes,
            None if self._replicas is None else Joint(self._team.ranks, self._replicas),
        )
        if self.restored is not None:
            self._saver.memory.remember(self.restored.checkpoint.id, self.restored.manifest.shards)
        self._saver.code = run.spec.code_digest or run.spec.image
        self._survey(self._saver)
        self._silence = Silence(self.identity.time_scale)
        self._pulse.watch_trouble("checkpoint", self._saver.trouble)
        self._pulse.watch_trouble("steps", self._silence.trouble)
        self._pulse.send_with(self._promoter.send)
        self._pulse.set(at_once=True, phase=Phase.TRAINING)

    def _take_over(self, gate: Gate) -> Lease:
        """Begin to beat, and take the lease; rank 0 does it for all."""
        self._marker.put()
        run = gate.call(lambda: self._ports.store.read_run(self.identity.run_id))
        beat = run.heartbeat(self.identity.generation)
        self._pulse.start(beat.counter if beat is not None else 0)
        lease = take_lease(gate)
        if self._team.size == 1:
            return lease
        return replace(lease, save=newest_number(gate, lease))

    def _see_that_rollbacks_can_be_made(self) -> None:
        if not self._framework.rolls_back:
            raise InvalidInput(
                "health.rollback is for training loops of your own: this framework's loop keeps counts that would "
                "not go back with the model. Leave it out of the spec; what is bad is never resumed from anyway"
            )

    def _survey(self, saver: Checkpointer) -> None:
        trouble = ""
        try:
            saver.survey(dict)
        except InvalidInput as error:
            if self._team.size == 1:
                raise
            trouble = str(error)
        trouble = self._team.any(trouble)
        if trouble:
            raise InvalidInput(trouble)

    def fit(self) -> None:
        """Put what was restored into a framework that had nothing to put it into when the attempt began.

        Raises:
            InvalidInput: it does not fit; names every misfit. Nothing was changed.
        """
        if self.restored is not None:
            fit(self.restored, self._framework, self._team)

    def _heed_word(self, asked: str) -> None:
        """What the control plane has asked, in the answer to a heartbeat."""
        if asked == ASK_DRAIN:
            self._watcher.end(self.identity.timings.drain, "the control plane asks for it")
        elif asked.startswith(ASK_STACKS):
            say("nothing has followed the last step for too long; these are the stacks of all threads:")
            show_stacks()

    def alive(self) -> None:
        """The program is at work between two steps; see `Run.alive`."""
        self._progress.seen(steps=False)
        self._pulse.set(signs=self._progress.signs)

    # between two steps

    def begin_steps(self, total: int | None, step: int) -> None:
        """Say how many steps are asked for; leave at once if the machine is already being taken back.

        A save that is under way is finished then, and none is begun: of steps made since, only the loop that made
        them knew where in the data they were, and an error may have ended it in the middle of one.

        Args:
            step: steps finished.
        """
        self._progress.begin()
        self._pulse.set(phase=Phase.TRAINING, total=total or 0, signs=self._progress.signs)
        agreed = self._agree_now(Moment.BEGIN, step)
        if agreed.ending is not None:
            self._active().new_steps = 0
            self._drain(agreed.ending, step, dict)

    def boundary(self, step: int, loss: Any, data: Data, settled: bool = True, norm: Any = None) -> None:
        """After a step: take note, and save, drain or stop where it is time to.

        Args:
            step: steps finished.
            settled: False in the middle of accumulated gradients, which no checkpoint holds.
            norm: of the gradients, where the script tells it.

        Raises:
            SystemExit: drained, or replaced by another attempt.
        """
        saver = self._active()
        self._note_life()
        saver.stepped(settled)
        self._unseen = (step, loss, norm)
        self._look_at_loss(wait=time.monotonic() - self._looked_at > LOSS_S)
        self._progress.seen()
        told = {"signs": self._progress.signs, "longest_s": round(self._progress.longest_s, 1)}
        self._pulse.set(step=step, first_step=True, at_once=not self._stepped, **told)
        if not self._stepped:
            self._stepped = True
            self._herald.report("first-step")
            saver.warm(data)  # the optimizer has its arrays only now
        if self._understudy is None and self._team.leads:
            self._understudy = Understudy(self._watcher, saver, self._leave_early)
            self._understudy.start()
        if self._has_left() and self._team.size == 1:  # several ranks leave together, once all have heard of the ending
            self._take_turn(step)
        self._collect()
        self._act(step, data, settled)
        self._say(step, settled)

    def _act(self, step: int, data: Data, settled: bool) -> None:
        """Do what follows from what all ranks knew after the step before: so all of them do it now."""
        saver = self._active()
        agreed = self._heard(step, settled)
        if agreed is None or not settled:
            return
        if agreed.ending is not None:
            self._drain(agreed.ending, step, data)
        if agreed.diverged and self._vitals.rules.rollback:
            self._roll_back(step, data)
        if agreed.reason is not None and agreed.busy:
            saver.give_up_if_stuck()
        elif agreed.reason is not None and self._begin(step, agreed.reason, data):
            self._rebalance = False
            if self._has_left():
                self._give_up_flight()  # it could not be committed any more

    def finish(self, step: int, data: Data) -> None:
        """Save the last state and wait until it is committed; the script may then go on to its end.

        Raises:
            SystemExit: drained or replaced before that.
        """
        try:
            self._commit_last(step, data)
        except Parted as error:
            self._give_up_flight()
            self._leave_alone(error)
        except BaseException:
            self._give_up_flight()
            raise
        self._pulse.set(at_once=True, phase=Phase.DONE)

    def _commit_last(self, step: int, data: Data) -> None:
        saver = self._active()
        self._note_life()
        self._take_turn(step)
        rest_s = LOOK_S
        while True:
            self.alive()  # whatever the bucket does, this wait is no hang of the program
            agreed = self._agree_now(Moment.FINISH, step)
            if self._saved_step == step and not agreed.busy:
                break
            if agreed.ending is not None and time.monotonic() >= agreed.ending:
                self._drain(agreed.ending, step, data)
            if not agreed.busy:
                self._begin(step, SaveReason.FINAL, data, in_place=True)
            elif saver.flight is not None and saver.flight.snapshot.step != step:
                saver.give_up_if_stuck()
            self._wait_for(saver.flight, 1.0)
            flight = self._collect()
            if saver.flight is None and (flight is None or flight.commit is None):
                time.sleep(rest_s)  # it failed for good, or none could be begun: not again at once
                rest_s = min(2 * rest_s, REST_MOST_S)

    def close(self) -> None:
        """End the threads; a save under way gets the time that saves usually take."""
        if self._closed:
            return
        self._closed = True
        if self._silence is not None:
            self._silence.end()
        self._rest()
        if self._saver is not None and self._saver.flight is not None:
            flight = self._saver.flight
            self._wait_for(flight, STUCK_S)
            if not flight.trouble:
                self._wait_for(flight, max(10.0, 3 * self._saver.costs.durable_s))
            flight.cancel()
        if self._saver is not None:
            self._saver.close()
        self._watcher.stop()
        self._pulse.stop()

    def _heard(self, step: int, settled: bool) -> Word | None:
        """What all ranks knew after the step before this one; for a process by itself, what it knows now."""
        try:
            agreed = self._agreement.hear(lambda: self._word(Moment.STEP, step, settled))
        except Parted as error:
            self._leave_alone(error)
        self._heed(agreed)
        self._vitals.hear(agreed is not None and agreed.ill)
        return agreed

    def _say(self, step: int, settled: bool) -> None:
        try:
            self._agreement.say(lambda: self._word(Moment.STEP, step, settled))
        except Parted as error:
            self._leave_alone(error)
        self._vitals.ill = False

    def _agree_now(self, moment: Moment, step: int) -> Word:
        """What all ranks know now; waits for the slowest."""
        try:
            agreed = self._agreement.now(self._word(moment, step, True))
        except Parted as error:
            self._leave_alone(error)
        self._heed(agreed)
        return agreed

    def _word(self, moment: Moment, step: int, settled: bool) -> Word:
        saver, ending = self._saver, self._watcher.ending
        return Word(
            moment,
            step,
            settled,
            None if ending is None else ending.deadline,
            self._reason(saver) if saver is not None and self._team.leads and moment is Moment.STEP else None,
            saver is not None and saver.flight is not None,
            bool(self._fence),
            self._vitals.ill,
            bool(self._vitals.diverged),
        )

    def _heed(self, agreed: Word | None) -> None:
        if agreed is not None and agreed.fenced:
            self._leave(
                EXIT_FENCED,
                f"{self._fence}. Of what this process knows, {self._kept()} is committed. It ends here; "
                "the run goes on elsewhere",
            )

    def _begin(self, step: int, reason: SaveReason, data: Data, in_place: bool = False) -> bool:
        saver = self._active()
        if saver.flight is None:
            self._look_at_loss(wait=True)
        return saver.begin(step, reason, data, in_place) is not None

    def _give_up_flight(self) -> None:
        # What is sent in place must not be committed once somebody may write to it again.
        if self._saver is not None and self._saver.flight is not None:
            self._saver.flight.cancel()

    def _look_at_loss(self, wait: bool) -> None:
        # To ask a GPU for a number is to wait for everything that it still has to do.
        if self._unseen is None:
            return
        step, *given = self._unseen
        loss, norm = (self._framework.loss(each, wait) for each in given)
        if loss is None and norm is None:
            return
        self._unseen = None
        self._looked_at = time.monotonic()
        self._vitals.see(step, loss, norm)
        if loss is not None:
            self._pulse.set(loss=loss)

    def _roll_back(self, step: int, data: Data) -> None:
        try:
            self._roll_back_together(step, data)
        except Parted as error:
            self._leave_alone(error)

    def _roll_back_together(self, step: int, data: Data) -> None:
        vitals = self._vitals
        why = self._team.any(vitals.diverged)
        vitals.diverged = ""
        if not vitals.may_roll_back(step):
            rules = vitals.rules
            self._leave(
                EXIT_REFUSED,
                f"the run has diverged again after {rules.max_rollbacks} rollbacks within {rules.window_steps} steps "
                f"({why}): going back does not help. Look at the data and the learning rate from step "
                f"{vitals.rollbacks[-1].to_step} on; nothing of the run was changed",
            )
        saver = self._active()
        if saver.flight is not None:
            saver.flight.cancel()
        stuck = self._finish_flight(time.monotonic() + STUCK_S, step)
        saver.settle()
        made = self._retreat.go(step, f"the run has diverged: {why}")
        if made is not None:
            vitals.rolled_back(*made)
            self._promoter.want(None)
            self._herald.report("rolled-back")
        if made is not None and not stuck:
            self._begin(step, SaveReason.REQUESTED, data)

    def _reason(self, saver: Checkpointer) -> SaveReason | None:
        if self._watcher.take_rebalance() and not saver.fresh():
            self._rebalance = True
        if self._rebalance:
            return SaveReason.REBALANCE
        return saver.due(ahead=0 if self._team.size == 1 else 1)  # several ranks act one step later

    def _collect(self) -> Flight | None:
        flight = self._active().collect()
        if flight is not None and flight.commit is not None:
            self._saved_step = flight.commit.step
            proven = self._vitals.committed(flight.commit)
            if proven is not None and self._team.leads:
                self._promoter.want(proven)
        if flight is not None and flight.fenced:
            self._fence = str(flight.failure)
        if flight is not None and isinstance(flight.failure, Parted):
            self._leave_alone(flight.failure)  # ranks that speak past each other would never save again
        return flight

    def _note_life(self) -> None:
        if self._silence is not None:
            self._silence.heard()

    def _active(self) -> Checkpointer:
        assert self._saver is not None, "enter() comes first"
        return self._saver

    # the way out

    def _drain(self, ending: float, step: int, data: Data) -> NoReturn:
        try:
            self._drain_together(ending, step, data)
        except Parted as error:
            self._leave_alone(error)

    def _drain_together(self, deadline: float, step: int, data: Data) -> NoReturn:
        mine = self._watcher.ending
        why = self._team.any("" if mine is None else mine.why)  # all are here now; until then the understudy watches
        self._take_turn(step)
        say(f"{why}: draining after step {step}")
        self._pulse.set(at_once=True, phase=Phase.DRAINING)
        try:
            self._last_words(deadline, step, data)
        except BaseException:
            self._give_up_flight()
            raise
        self._departure.release(deadline)
        self._tell_drained(step)
        self._leave(EXIT_DRAINED, "")

    def _has_left(self) -> bool:
        """Whether the leave was taken beside the loop, on this rank."""
        return self._understudy is not None and self._understudy.has_left

    def _take_turn(self, step: int) -> None:
        """From here on the loop itself takes the leave, unless that was done beside rank 0's.

        Raises:
            Parted: another rank has left.
        """
        understudy, self._understudy = self._understudy, None
        if not self._team.first(understudy is not None and not understudy.yields()):
            return
        if understudy is not None:
            understudy.wait(GOODBYE_S)
        late = self._active().collect()
        if late is not None and late.commit is not None:
            self._saved_step = late.commit.step
        self._tell_drained(step)
        self._leave(EXIT_DRAINED, "")

    def _tell_drained(self, step: int) -> None:
        if self._saved_step == step:
            say(f"drained: step {step} is committed, the next attempt goes on from it")
        else:
            say(f"drained: steps after {self._saved_step or 0} were not committed in time and will be done again")

    def _leave_early(self, ending: Ending) -> None:
        """Beside the loop, in the middle of a step that will not end in time: the lease goes to the next attempt."""
        say(f"{ending.why}: the step that is being made will not end in time for a checkpoint of its own")
        self._pulse.set(at_once=True, phase=Phase.DRAINING)
        flight = self._active().flight
        if flight is not None:
            flight.cancel()  # over by now, or too late
        self._departure.release(ending.deadline)

    def _rest(self) -> None:
        if self._understudy is not None:
            self._understudy.stop()

    def _last_words(self, deadline: float, step: int, data: Data) -> None:
        saver = self._active()
        best = saver.last_save(deadline - time.monotonic())
        choice = LastSave(self._team.first(best.value))
        busy = saver.flight is not None
        if choice in (LastSave.FINISH, LastSave.FINISH_THEN_NEW):
            busy = self._finish_flight(deadline, step)
        if choice is LastSave.NEW:
            if saver.flight is not None:
                saver.flight.cancel()
            busy = self._finish_flight(deadline, step)
        if choice in (LastSave.NEW, LastSave.FINISH_THEN_NEW) and not busy:
            self._begin(step, SaveReason.NOTICE, data, in_place=True)
            self._finish_flight(deadline, step)

    def _finish_flight(self, deadline: float, step: int) -> bool:
        """Wait for the save under way; whether it is still under way, on any rank."""
        flight = self._active().flight
        self._wait_for(flight, deadline - time.monotonic())
        if flight is not None:
            flight.cancel()
        self._collect()
        return self._agree_now(Moment.LEAVE, step).busy

    def _wait_for(self, flight: Flight | None, seconds: float) -> None:
        # In slices: a signal handler runs between them, not in the middle of one long wait.
        until = time.monotonic() + seconds
        while flight is not None and not flight.over.is_set() and (left := until - time.monotonic()) > 0:
            flight.over.wait(min(LOOK_S, left))

    def _drain_unborn(self, why: str) -> NoReturn:
        say(f"{why}: this attempt ends before its first step")
        self._departure.release(time.monotonic())
        self._leave(EXIT_DRAINED, "")

    def _leave(self, code: int, message: str) -> NoReturn:
        if message:
            say(message)
        self._closed = True
        self._rest()
        self._departure.leave(code)

    def _leave_alone(self, error: Parted) -> NoReturn:
        self._closed = True
        self._departure.leave_alone(error, self._kept())

    def _kept(self) -> str:
        return "nothing" if self._saved_step is None else f"everything up to step {self._saved_step}"
