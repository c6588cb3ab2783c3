"""Be the agent of this machine."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from spotrelay.core.errors import SpotrelayError
from spotrelay.instance.agent import Agent
from spotrelay.instance.identity import Identity, read_identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.patience import StopAsked, keep_trying
from spotrelay.instance.programs import Programs
from spotrelay.instance.wiring import connect

NOT_CONFIGURED = 64  # exit status that makes the resume script report for the agent
STOPPED = 143  # as a shell says SIGTERM


def main() -> int:
    """Be the agent of this machine, as the environment says; the resume script's guard reads the status."""
    logbook = Logbook(sys.stderr.buffer)
    programs = Programs(logbook)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        programs.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, programs would inherit that
    try:
        me = read_identity(os.environ)
        pause = me.timings.poll / 5
        services = keep_trying(
            lambda: connect(me, os.environ), me.timings.boot, pause, programs.stop_asked, logbook.say
        )
    except SpotrelayError as error:
        logbook.say(str(error))
        return NOT_CONFIGURED
    except StopAsked:
        return STOPPED
    serving: Identity | None = me
    while serving is not None:
        serving = Agent(serving, services, logbook, programs, os.environ).run()
    return 0
