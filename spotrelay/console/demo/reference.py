"""The uninterrupted run of the same script, beside the interrupted one and under the same conditions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from spotrelay.console.demo.failure import DemoFailed
from spotrelay.localcloud.processes import Alias

STOP_S = 5.0
DYING_WITH_US = (  # set by the kernel to be killed when the demo is, then the script itself
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"  # PR_SET_PDEATHSIG
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Reference:
    """The script as anybody would start it, without Spotrelay; ended with the block that opened it."""

    def __init__(self, script: Path, steps: int, folder: Path, scratch: Path) -> None:
        self._command = [sys.executable, "-c", DYING_WITH_US, str(script), "--steps", str(steps), "--out", str(folder)]
        self._log = folder / "log.jsonl"
        self._folder = folder
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reference:
        self._alias = Alias(self._scratch)
        with self._log.open("wb") as log, (self._folder / "stderr.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                self._command,
                env={**outside_spotrelay(), "TMPDIR": self._alias.path},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            self._end(process)
        self._alias.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for deed in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, deed)  # its data loaders too
            except ProcessLookupError:
                break
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    @property
    def running(self) -> bool:
        """Whether it still trains.

        Raises:
            DemoFailed: it failed; the text ends with what it said.
        """
        assert self._process is not None
        code = self._process.poll()
        if code:
            said = (self._folder / "stderr.txt").read_text(errors="replace")[-1500:]
            raise DemoFailed(f"the uninterrupted run failed with exit status {code}:\n{said}")
        return code is None

    def losses(self) -> dict[int, float]:
        """Loss by step, as far as it has come."""
        return losses_in(self._log.read_text(errors="replace"))

    def step(self) -> int:
        """Steps finished: a line is printed for each."""
        return self._log.read_bytes().count(b"\n")

    def digest(self) -> str:
        """Digest of its final weights; empty while it trains."""
        try:
            return str(json.loads((self._folder / "digest.json").read_text())["digest"])
        except (FileNotFoundError, ValueError):
            return ""


def losses_in(text: str) -> dict[int, float]:
    """Loss by step in what the script printed; of a step done twice the last."""
    found: dict[int, float] = {}
    for line in text.splitlines():
        said = _object(line)
        if "step" in said and "loss" in said:
            found[int(said["step"])] = float(said["loss"])
    return found


def digest_in(text: str) -> str:
    """The digest that the script printed at its end; empty when it did not come to it."""
    return next((str(said["digest"]) for line in text.splitlines() if "digest" in (said := _object(line))), "")


def outside_spotrelay() -> dict[str, str]:
    """This process's environment without anything that belongs to a run or to AWS."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SPOTRELAY_", "AWS_"))}
    return {**ours, "PYTHONDONTWRITEBYTECODE": "1"}


def _object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:  # cut off by a kill
        return {}
    return value if isinstance(value, dict) else {}
