"""MiniStack as a process of its own: DynamoDB, S3 and the rest over HTTP on loopback, for tests.

Races belong here or on the in-memory ports, never on moto, which loses updates between threads.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY_S = 60  # seconds to answer its first connection
GRACE_S = 5  # seconds between SIGTERM and SIGKILL
POLL_S = 0.05
START = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a test run that is killed leaves nothing
runpy.run_module("ministack", run_name="__main__")
"""


@contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """The endpoint of a MiniStack that lives as long as the block, or as its parent at most.

    Args:
        folder: for its temporary files and its log; removed by whoever made it.
    """
    port = _free_port()
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(folder, port),
        )
    try:
        _await(process, port, folder / "ministack.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _environment(folder: Path, port: int) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return ours | {
        "BIND_HOST": "127.0.0.1",  # it would bind every interface
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "TMPDIR": str(folder),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(POLL_S)
    raise RuntimeError(f"MiniStack did not start; its log ends with:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
