"""The file that tells the machine's agent that we beat now, and other processes that the place is taken."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from spotrelay.core.errors import InvalidInput
from trainer_shim.voice import say

NAME = "attached"


class Marker:
    """Held as long as this process lives; the kernel lets go of it when the process dies."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def put(self) -> None:
        """Create the file.

        Raises:
            InvalidInput: another process of this machine has attached to the same attempt.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / NAME).open("a+")
        except OSError as error:
            say(f"the agent cannot be told that training has begun, which harms nothing: {error}")
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise InvalidInput(
                "another process on this machine has attached to this run already: two would overwrite each "
                "other's checkpoints. Call attach() in one process only"
            ) from error
        self._file = file
