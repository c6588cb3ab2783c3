"""Notices a script that has attached and trains, and tells the shim of no step: nothing of it can be saved."""

from __future__ import annotations

import time

from trainer_shim.voice import say

PATIENCE_S = 600.0  # a first step may compile for minutes


class Silence:
    """From the attach to the first step."""

    def __init__(self, time_scale: float) -> None:
        self._begun = time.monotonic()
        self._patience_s = PATIENCE_S * time_scale
        self._heard = False
        self._told = False

    def heard(self) -> None:
        """A step was reported, or a loop over `run.steps` came to its end."""
        self._heard = True

    def trouble(self) -> str:
        """What to tell when it has lasted for too long; said aloud once. Empty otherwise."""
        if self._heard or time.monotonic() - self._begun < self._patience_s:
            return ""
        text = (
            f"no step was reported since the script attached {self._patience_s:.0f} s ago: if it trains already, "
            "nothing is saved. Let it call run.step(loss) once for each batch"
        )
        if not self._told:
            self._told = True
            say(text)
        return text

    def end(self) -> None:
        """The script has come to its end."""
        if not self._heard:
            say("the script ends without having called run.step(loss): nothing of it was saved")
