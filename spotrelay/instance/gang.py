"""Several machines as one attempt: which of them this one is, where they meet, and what befalls the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from spotrelay.core.errors import SpotrelayError, UnknownRun
from spotrelay.core.live import ENDING, Phase
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.instance.admission import NotMine, why_not
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.patience import StopAsked, keep_trying
from spotrelay.instance.services import Services

UNPREPARED = (Phase.BOOT, Phase.SETUP)


class GangDrains(Exception):
    """EC2 takes a machine of the gang: its program is not started any more."""


class Gang:
    """This machine among the others of its attempt, by way of the run's row and their heartbeats."""

    def __init__(self, me: Identity, services: Services, logbook: Logbook, stop: threading.Event) -> None:
        self._me = me
        self._services = services
        self._logbook = logbook
        self._stop = stop
        self._over = threading.Event()
        self._told = False

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

    def _listen(self) -> None:
        while not self._told and not self._over.wait(self._me.timings.beat.total_seconds()):
            try:
                attempt = self._services.live.read_run(self._me.run_id).attempt(self._me.generation)
            except SpotrelayError:
                continue  # the shim sees its own machine's notice, and this row again in a moment
            if attempt is not None and attempt.state is AttemptState.DRAINING:
                self._tell(attempt)

    def _tell(self, attempt: Attempt) -> None:
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
            return
        self._told = True
        self._logbook.say("EC2 takes a machine of this gang: the program was told")

    def _admitted(self) -> Run:
        me = self._me
        try:
            run = keep_trying(
                lambda: self._services.live.read_run(me.run_id), me.timings.boot, me.timings.poll / 5,
                self._stop, self._logbook.say,
            )  # fmt: skip
        except UnknownRun as error:
            raise NotMine(str(error)) from error
        reason = why_not(run, me)
        if reason is not None:
            raise NotMine(reason)
        return run

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
