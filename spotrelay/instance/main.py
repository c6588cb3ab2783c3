"""Be the agent of this machine."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from spotrelay.core.errors import InvalidInput
from spotrelay.instance.agent import Agent
from spotrelay.instance.identity import read_identity
from spotrelay.instance.logbook import Logbook
from spotrelay.instance.wiring import connect

NOT_CONFIGURED = 64  # exit status that makes the resume script report for the agent


def main() -> int:
    """Be the agent of this machine, as the environment says; the resume script's guard reads the status."""
    logbook = Logbook(sys.stderr.buffer)
    try:
        me = read_identity(os.environ)
    except InvalidInput as error:
        logbook.say(str(error))
        return NOT_CONFIGURED
    agent = Agent(me, connect(me, os.environ), logbook, os.environ)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        agent.programs.stop()

    signal.signal(signal.SIGTERM, stop)
    agent.run()
    return 0
