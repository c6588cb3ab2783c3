"""Where every thread of this process stands, for the log of a program that gets nowhere."""

from __future__ import annotations

import faulthandler
import sys

STDERR = 2  # the process's own, also where a script or a tracker has replaced sys.stderr


def show_stacks() -> None:
    """Write the stacks of all threads to the process's standard error, which the agent ships."""
    sys.stderr.flush()
    faulthandler.dump_traceback(STDERR, all_threads=True)
