"""The user's programs: argument lists run as children, their output into the log."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from spotrelay.instance.logbook import Logbook

NOT_FOUND = 127  # as a shell says it
NOT_RUNNABLE = 126
LAST_WORDS_S = 5.0  # given to output still in the pipe when a program has ended and its children have not


class Programs:
    """Runs one program at a time, in this process's own group, and hands a request to stop on to it."""

    def __init__(self, logbook: Logbook, last_words_s: float = LAST_WORDS_S) -> None:
        self._logbook = logbook
        self._last_words_s = last_words_s
        self._running: subprocess.Popen[bytes] | None = None
        self.stop_asked = threading.Event()

    def stop(self) -> None:
        """Ask the running program to end, and the one that is about to start; safe in a signal handler."""
        self.stop_asked.set()
        running = self._running
        if running is not None:
            running.send_signal(signal.SIGTERM)

    def interrupt(self, how: signal.Signals) -> bool:
        """Ask the running program alone to end; whether there is one. The machine goes on."""
        running = self._running
        if running is not None:
            running.send_signal(how)
        return running is not None

    def run(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
        """Run a program to its end; its exit status, negative when a signal killed it.

        No shell sees the arguments. They are not logged either: only the program's name is.
        """
        try:
            child = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError:
            self._logbook.say(f"there is no program {command[0]!r} (working directory {folder})")
            return NOT_FOUND
        except OSError as error:
            self._logbook.say(f"{command[0]!r} cannot be run: {error.strerror or error}")
            return NOT_RUNNABLE
        self._running = child
        if self.stop_asked.is_set():  # asked between the start and the line above
            child.send_signal(signal.SIGTERM)
        listener = threading.Thread(target=self._listen, args=(child.stdout,), name="output", daemon=True)
        listener.start()
        try:
            return child.wait()
        finally:
            self._running = None
            listener.join(self._last_words_s)

    def _listen(self, output: IO[bytes]) -> None:
        with output:
            while data := output.read1(65536):  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
                self._logbook.write(data)
