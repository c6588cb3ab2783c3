"""A machine of a test: bash that really runs the resume script, in a folder and group of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

RESUME = resources.files("spotrelay.instance").joinpath("resume.sh").read_text()
PLACEHOLDER = re.compile(r"^(\w+)=@(\w+)@$", re.MULTILINE)
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def rendered(values: Mapping[str, str]) -> str:
    """User data as the stack writes it: every placeholder replaced by a shell-quoted value."""
    return PLACEHOLDER.sub(lambda found: f"{found[1]}={shlex.quote(values[found[2]])}", RESUME)


def eventually(question: Callable[[], bool], what: str, within: float = 30.0) -> None:
    """Wait for a real process to get somewhere."""
    until = time.monotonic() + within
    while not question():
        assert time.monotonic() < until, f"it took more than {within} s until {what}"
        time.sleep(0.02)


def write_program(path: Path, text: str) -> Path:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def write_archive(path: Path, main: str, packages: tuple[Path, ...] = ()) -> bytes:
    """A zip archive with this `__main__`; returns its bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", main)
        for package in packages:
            for file in sorted(package.rglob("*.py")):
                archive.write(file, file.relative_to(package.parent))
    return path.read_bytes()


class Machine:
    """One run of the resume script. Its `shutdown` only writes down that it was called."""

    def __init__(self, folder: Path, environment: Mapping[str, str], path: str = SYSTEM_PATH) -> None:
        self.folder = folder
        self.halted = folder / "halted"
        write_program(folder / "bin" / "shutdown", f'#!/bin/sh\necho "$@" >>{shlex.quote(str(self.halted))}\n')
        (folder / "tmp").mkdir()
        self.path = f"{folder / 'bin'}:{path}"
        assert shutil.which("shutdown", path=self.path) == str(folder / "bin" / "shutdown")
        self._environment = {"PATH": self.path, "TMPDIR": str(folder / "tmp"), "HOME": str(folder), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, user_data: str) -> None:
        """Start bash on this user data."""
        script = self.folder / "user-data"
        script.write_text(user_data)
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["/bin/bash", str(script)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "boot first"
        return self._process

    def wait(self, within: float = 60.0) -> int:
        """The status with which the script ended."""
        return self.process.wait(within)

    def console(self) -> str:
        """Everything the machine has printed."""
        return (self.folder / "console").read_text(errors="replace")

    def halts(self) -> list[str]:
        """Arguments of every call of `shutdown`."""
        return self.halted.read_text().splitlines() if self.halted.exists() else []

    def work(self) -> Path:
        """The folder that the script made for itself."""
        return next((self.folder / "tmp").glob("spotrelay.*"))

    def kill(self) -> None:
        """End the whole group, as EC2 does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


def python_path() -> str:
    """The Python that runs the tests."""
    return sys.executable
