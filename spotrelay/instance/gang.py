"""Several machines as one attempt: which of them this one is, where they meet, and what befalls the others."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.live import ENDING, EXIT_DONE, LEFT, ExitReport, Phase
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.instance.admission import admitted
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.patience import StopAsked, keep_trying
from spotrelay.instance.programs import Programs
from spotrelay.instance.services import Services

ATTACHED = "attached"  # file in the state folder: the shim beats from now on
KILL_AFTER_S = 45.0  # more than the 30 s that torchrun gives its own processes
UNPREPARED = (Phase.BOOT, Phase.SETUP)


class GangDrains(Exception):
    """EC2 takes a machine of the gang: its program is not started any more."""


class Gang:
    """This machine among the others of its attempt, by way of the run's row and their heartbeats."""

    def __init__(self, me: Identity, services: Services, logbook: Logbook, programs: Programs) -> None:
        self._me = me
        self._services = services
        self._logbook = logbook
        self._programs = programs
        self._stop = programs.stop_asked
        self._over = threading.Event()

    def take_place(self, run: Run) -> Identity:
        """This machine with its rank and address, once the run's row names all machines of the attempt.

        All of them have the same tags, so that the row alone knows their order.

        Raises:
            NotMine: the attempt has other machines, or is over.
            StopAsked: the machine is being ended.
            SpotrelayError: the row names none for longer than a machine may take to boot.
        """
        until = time.monotonic() + self._me.timings.boot.total_seconds()
        while not self._attempt(run).instance_ids:
            if time.monotonic() > until:
                raise SpotrelayError(
                    f"run {self._me.run_id} does not name the machines of attempt {self._me.generation}"
                )
            self._pause()
            run = self._admitted()
        names = self._attempt(run).instance_ids
        address = self._patiently_address()
        self._me = replace(self._me, node=names.index(self._me.instance_id), nodes=len(names), address=address)
        self._logbook.say(f"this is machine {self._me.node} of {len(names)}, at {address}")
        return self._me

    def gather(self) -> str:
        """The address of the first machine, once all of them are prepared to start the program.

        Raises:
            NotMine: the attempt is over.
            GangDrains: a machine of it is being taken back.
            StopAsked: this machine is being ended.
        """
        self._logbook.say("prepared, waiting for the other machines")
        while True:
            run = self._admitted()
            if self._attempt(run).state is AttemptState.DRAINING:
                raise GangDrains("EC2 takes a machine of this gang")
            beats = [run.heartbeat(self._me.generation, node) for node in range(self._me.nodes)]
            if all(beat is not None and beat.phase not in UNPREPARED for beat in beats):
                assert beats[0] is not None
                return beats[0].address
            self._pause()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile, tell the program when the run's row says that another machine is being taken."""
        listener = threading.Thread(target=self._listen, name="gang", daemon=True)
        listener.start()
        try:
            yield
        finally:
            self._over.set()

    def called(self, report: ExitReport) -> Identity | None:
        """Who this machine is in the next attempt, if the run's row names it there; None when it may end.

        Whoever is not wanted is ended by the control plane; the bound here is for the time in which nobody can.
        """
        me, timings = self._me, self._me.timings
        if report.stage != "program" or report.code == EXIT_DONE:
            return None
        self._logbook.say("waiting whether the next attempt wants this machine")
        until = time.monotonic() + (timings.notice + timings.after_deadline + timings.hopeless).total_seconds()
        while time.monotonic() < until and not self._stop.wait(timings.poll.total_seconds() / 5):
            try:
                run = self._services.live.read_run(me.run_id)
            except SpotrelayError:
                continue
            if run.outcome is not None:
                return None
            attempt = run.attempt_on(me.instance_id)
            if attempt is not None and attempt.generation > me.generation:
                self._clear_words()
                self._logbook.say(f"this machine goes on in attempt {attempt.generation}")
                return replace(me, generation=attempt.generation, node=0, nodes=1, address="")
        return None

    def _clear_words(self) -> None:
        """What the shim and the agent told each other was about the attempt before."""
        for name in (ATTACHED, LEFT, ENDING):
            (self._me.state / name).unlink(missing_ok=True)

    def _listen(self) -> None:
        told = interrupted = False
        while not self._over.wait(self._me.timings.beat.total_seconds()):
            try:
                run = self._services.live.read_run(self._me.run_id)
            except SpotrelayError:
                continue  # the shim sees its own machine's notice, and this row again in a moment
            attempt = run.attempt(self._me.generation)
            if attempt is None or run.outcome is not None:
                continue
            if attempt.over and not interrupted:
                interrupted = True
                threading.Thread(target=self._interrupt, name="interrupt", daemon=True).start()
            elif attempt.state is AttemptState.DRAINING and not told:
                told = self._tell(attempt)

    def _interrupt(self) -> None:
        """End a program whose gang is broken: it may wait for a lost machine for as long as torch does."""
        self._logbook.say("the attempt is over: its program is ended")
        self._programs.interrupt(signal.SIGTERM)
        if not self._over.wait(KILL_AFTER_S):
            self._programs.interrupt(signal.SIGKILL)

    def _tell(self, attempt: Attempt) -> bool:
        """Leave word where the shim looks. Its deadline is by the clock that all processes of a machine share."""
        lead = self._me.timings.notice
        left = (attempt.deadline or datetime.now(UTC)) - datetime.now(UTC)
        if not timedelta(0) <= left <= lead:  # a clock that is wrong
            left = min(max(left, lead / 2), lead)
        words = f"{self._me.generation} {time.monotonic() + left.total_seconds()!r} EC2 takes a machine of this gang\n"
        draft = self._me.state / f"{ENDING}.new"
        try:
            draft.write_text(words)
            draft.replace(self._me.state / ENDING)
        except OSError as error:
            self._logbook.say(f"the program cannot be told that its gang drains: {error}")
            return False
        self._logbook.say("EC2 takes a machine of this gang: the program was told")
        return True

    def _admitted(self) -> Run:
        return admitted(self._me, self._services.live, self._stop, self._logbook)

    def _attempt(self, run: Run) -> Attempt:
        attempt = run.attempt(self._me.generation)
        assert attempt is not None, "admitted"
        return attempt

    def _patiently_address(self) -> str:
        timings = self._me.timings
        return keep_trying(
            self._services.metadata.address, timings.boot, timings.poll / 5, self._stop, self._logbook.say
        )

    def _pause(self) -> None:
        if self._stop.wait(self._me.timings.poll.total_seconds() / 5):
            raise StopAsked
