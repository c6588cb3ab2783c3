"""One attempt on one machine, from its first heartbeat to the end of the machine."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

from spotrelay.core.errors import SpotrelayError
from spotrelay.core.live import EXIT_DONE, EXIT_DRAINED, EXIT_FENCED, LEFT, ExitReport, Phase
from spotrelay.core.run import Run
from spotrelay.instance.admission import NotMine, admitted
from spotrelay.instance.environment import meeting_environment
from spotrelay.instance.gang import ATTACHED, Gang, GangDrains
from spotrelay.instance.gpus import BadHost, trouble
from spotrelay.instance.heartbeats import Beater
from spotrelay.instance.identity import Identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.logship import LogShipper
from spotrelay.instance.nearness import bucket_for
from spotrelay.instance.patience import StopAsked
from spotrelay.instance.power import end_machine
from spotrelay.instance.prefetch import Prefetch
from spotrelay.instance.preparation import Preparation, Prepared, StepFailed
from spotrelay.instance.programs import Programs
from spotrelay.instance.report import announce, deliver, reclaim_seen
from spotrelay.instance.services import Services

BAD_HOST = 71  # code of a report about the machine itself
DEFECT = 70  # code of a boot report that is our own fault


class Agent:
    """What a machine does for its attempt."""

    def __init__(
        self,
        me: Identity,
        services: Services,
        logbook: Logbook,
        programs: Programs,
        environ: Mapping[str, str],
        gpu_trouble: Callable[[], str] = trouble,
    ) -> None:
        self._me = me
        self._services = services
        self._logbook = logbook
        self._environ = environ
        self._gpu_trouble = gpu_trouble
        timings = me.timings
        self._timings = timings
        self._programs = programs
        self._kept = timedelta(0)  # how long this machine stays when its attempt fails
        self._shipper = LogShipper(services.objects, logbook, me.run_id, me.generation, timings.poll)
        self._prefetch = Prefetch(services.objects, logbook, me.cache)
        self._gang: Gang | None = None  # of an attempt with several machines
        self._beater = Beater(
            services.live, logbook, me.run_id, me.generation, timings.beat, me.state / ATTACHED,
            lambda: self._shipper.trouble,
        )  # fmt: skip

    def run(self) -> Identity | None:
        """Run the attempt, tell how it ended, and end the machine or leave it to EC2.

        Returns:
            Who this machine is from now on, where it survived its gang and the next attempt wants it.
        """
        self._shipper.start()
        report = self._report()
        self._beater.stop(self._timings.poll)
        self._prefetch.stop()
        self._shipper.flush(self._timings.poll)
        reclaim = None if self._me.host else reclaim_seen(self._services.metadata, self._logbook)
        if report is not None:
            deliver(
                report, self._services.live, self._services.publisher, self._logbook, self._programs.stop_asked,
                self._timings, reclaim,
            )  # fmt: skip
        if self._gang is not None and report is not None and reclaim is None:
            successor = self._gang.called(report)
            if successor is not None:
                self._shipper.close(self._timings.poll * 4)
                return successor
        drained = report is not None and report.stage == "program" and report.code == EXIT_DRAINED
        if (drained and self._gang is None and not self._me.host) or reclaim is not None:
            self._idle()
        elif report is not None and report.code not in (EXIT_DONE, EXIT_FENCED):
            self._stay()
        self._logbook.say("this machine ends now")
        self._shipper.close(self._timings.poll * 4)
        if not self._me.host:  # a host outlives its machines: its keeper ends what is left of this one
            end_machine(self._logbook)
        return None

    def _report(self) -> ExitReport | None:
        """Run the attempt to its end; None when there is nothing true to say about it."""
        try:
            prepared = self._prepare()
        except NotMine as reason:
            self._logbook.say(f"this machine does nothing: {reason}")
            return None
        except GangDrains as reason:
            self._logbook.say(f"{reason}, before the program was started")
            return self._ended("program", EXIT_DRAINED)
        except StopAsked:
            self._logbook.say("the machine is being ended before the program was started")
            return None
        except BadHost as error:
            self._logbook.say(f"this host is bad, the run goes on elsewhere: {error}")
            return self._ended("host", BAD_HOST)
        except StepFailed as error:
            self._logbook.say(str(error))
            return self._ended("boot", error.code)
        except SpotrelayError as error:
            self._logbook.say(f"the attempt cannot start: {error}")
            return self._ended("boot", 1)
        except OSError as error:
            self._logbook.say(f"the attempt cannot start: {error.strerror}: {error.filename}")
            return self._ended("boot", 1)
        except Exception:  # noqa: BLE001  # a defect of ours must still be told, with where it is
            self._logbook.say(f"the attempt cannot start, a defect of Spotrelay:\n{traceback.format_exc()}")
            return self._ended("boot", DEFECT)
        return self._run_program(prepared)

    def _prepare(self) -> Prepared:
        run = admitted(self._me, self._services.live, self._programs.stop_asked, self._logbook)
        self._kept = timedelta(minutes=run.spec.keep_failed_minutes)
        if run.spec.nodes > 1:
            self._take_place(run)
        for folder in (self._me.cache, self._me.state, self._me.code):
            folder.mkdir(parents=True, exist_ok=True)
        self._beater.start()
        announce(self._services.publisher, self._logbook, self._me.run_id, self._me.generation, "boot")
        self._prefetch.start(run.checkpoints, bucket_for(run, self._me.region, self._services, self._logbook))
        if run.spec.gpu_test and (wrong := self._gpu_trouble()):
            raise BadHost(wrong)
        self._beater.enter(Phase.SETUP)
        preparation = Preparation(self._me, self._services, self._logbook, self._programs, self._environ)
        prepared = preparation.prepare(run.spec)
        return self._meet(prepared) if run.spec.nodes > 1 else prepared

    def _take_place(self, run: Run) -> None:
        """Learn which of the gang's machines this one is, and whom it has to wait for."""
        self._gang = Gang(self._me, self._services, self._logbook, self._programs)
        self._me = self._gang.take_place(run)
        self._shipper.node = self._beater.node = self._me.node
        self._beater.address = self._me.address

    def _meet(self, prepared: Prepared) -> Prepared:
        """Wait until every machine of the gang is as far as this one."""
        assert self._gang is not None
        self._beater.enter(Phase.WAITING)
        address = self._gang.gather()
        return replace(prepared, environment={**prepared.environment, **meeting_environment(self._me, address)})

    def _run_program(self, prepared: Prepared) -> ExitReport | None:
        self._logbook.say(f"starting {prepared.command[0]!r} with {len(prepared.command) - 1} arguments")
        with self._gang.listening() if self._gang is not None else nullcontext():
            code = self._programs.run(prepared.command, prepared.environment, prepared.folder)
        self._logbook.say(f"the program ended with status {code}")
        code = self._as_told(code)
        if self._programs.stop_asked.is_set() and code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            self._logbook.say("it was ended together with the machine, which is no failure of its own")
            return None
        return self._ended("program", code)

    def _as_told(self, code: int) -> int:
        """The attempt's own status, where the shim has left word: torchrun and shells turn it into theirs."""
        try:
            generation, status = map(int, (self._me.state / LEFT).read_text().split())
        except (OSError, ValueError):
            return code
        if generation != self._me.generation or status == code:
            return code
        self._logbook.say(f"the shim in it had ended with status {status}, which counts")
        return status

    def _ended(self, stage: str, code: int) -> ExitReport:
        me = self._me
        return ExitReport(me.run_id, me.generation, code, stage, self._logbook.tail(), node=me.node)

    def _idle(self) -> None:
        """Wait for EC2 to take the machine: ending it ourselves would forfeit a refund. Not for ever."""
        bound = self._timings.notice + self._timings.after_deadline + self._timings.hopeless
        self._logbook.say("waiting for EC2 to take this machine")
        self._shipper.flush(self._timings.poll)
        if not self._programs.stop_asked.wait(bound.total_seconds()):
            self._logbook.say(f"EC2 has not taken this machine within {bound / timedelta(minutes=1):.0f} minutes")

    def _stay(self) -> None:
        """Stay up for a person who wants to see why this attempt failed; the control plane ends the machine."""
        if self._kept <= timedelta(0) or self._gang is not None:
            return
        minutes = self._kept / timedelta(minutes=1)
        self._logbook.say(f"the attempt failed: this machine stays for {minutes:g} minutes, for whoever wants to look")
        self._shipper.flush(self._timings.poll)
        self._programs.stop_asked.wait(self._kept.total_seconds())
