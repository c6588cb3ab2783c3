"""The file that tells the machine's agent that we beat now, and other processes that the place is taken."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from spotrelay.core.errors import InvalidInput
from spotrelay.core.live import LEFT
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
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        # A forked child, such as a loader's worker, must not keep the place taken when this process is dead.
        if self._file is not None:
            self._file.close()

    def leave_word(self, generation: int, status: int) -> bool:
        """Tell the agent how the attempt ended, where a launcher stands between; whether that worked."""
        if self._folder is None:
            return False
        try:
            draft = self._folder / f"{LEFT}.new"
            draft.write_text(f"{generation} {status}\n")
            draft.replace(self._folder / LEFT)
        except OSError as error:
            say(f"the agent cannot be told that this attempt ended with {status}: {error}")
            return False
        return True


def exit_status(status: int, told: bool, ranks: int) -> int:
    """What a process ends with, so that the agent learns this status.

    torchrun reports any failure of its processes as 1, or starts them again. So where the agent was told by
    a file, they end as torchrun likes it.
    """
    return 0 if told and ranks > 1 and "TORCHELASTIC_RUN_ID" in os.environ else status
