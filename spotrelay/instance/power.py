"""Ending the machine."""

from __future__ import annotations

import subprocess

from spotrelay.instance.logbook import Logbook


def end_machine(logbook: Logbook) -> bool:
    """Ask the operating system to halt, which ends the instance; whether it agreed."""
    try:
        done = subprocess.run(["shutdown", "-h", "now"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        logbook.say(f"this machine cannot be shut down ({error}): the control plane has to end it")
        return False
    if done.returncode != 0:
        why = done.stderr.decode("utf-8", "replace").strip()
        logbook.say(f"shutdown ended with status {done.returncode} ({why}): the control plane has to end this machine")
    return done.returncode == 0
