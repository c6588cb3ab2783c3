"""The embedded cloud's outer process: starts the cloud below it, and leaves no process behind, however it ends.

    python -m spotrelay.localcloud.server --home DIR [--time-scale 1.0] [--parent PID] [--way-in URL]

It prints one JSON line when the cloud answers (endpoint, control token, credentials, pid), then waits. It ends on
SIGTERM, SIGINT, when the process that started it is gone, and when the cloud below it dies; each time everything
that descends from it is killed first. It does nothing else, so that nothing else can go wrong in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from spotrelay.localcloud import processes

_CHECK_S = 0.1
_GRACE_S = 5.0
_WAKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; exit status 0 after a stop, 1 when the cloud died by itself."""
    parser = argparse.ArgumentParser(prog="python -m spotrelay.localcloud.server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the only folder in which files are written")
    parser.add_argument("--time-scale", type=float, default=1.0, help="how much of each real waiting time is waited")
    parser.add_argument("--parent", type=int, default=None, help="process whose end ends the cloud")
    parser.add_argument("--way-in", default=None, help="URL at which functions and machines find the cloud")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAKING)
    processes.become_subreaper()
    options.home.mkdir(parents=True, exist_ok=True)
    scratch = options.home / "tmp"
    scratch.mkdir(exist_ok=True)
    parent = options.parent if options.parent is not None else os.getppid()
    cloud = _start_cloud(options, scratch)
    try:
        asked = _wait(cloud.pid, parent)
        if asked:
            _stop_gently(cloud.pid)
    finally:
        processes.kill_descendants()
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if asked else 1


def _start_cloud(options: argparse.Namespace, scratch: Path) -> subprocess.Popen[bytes]:
    told = ["--home", str(options.home), "--time-scale", str(options.time_scale), "--parent", str(os.getpid())]
    if options.way_in is not None:
        told += ["--way-in", options.way_in]
    command = [sys.executable, "-m", "spotrelay.localcloud.host", *told]
    with (options.home / "server.log").open("ab") as log:
        return subprocess.Popen(command, env=_environment(scratch), stdin=subprocess.DEVNULL, stderr=log)


def _environment(scratch: Path) -> dict[str, str]:
    """This process's environment without anything AWS, so that no real account is ever reached from here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "TMPDIR": str(scratch), "AWS_EC2_METADATA_DISABLED": "true"}


def _wait(cloud: int, parent: int) -> bool:
    """Wait for a reason to end; True when somebody asked for it, False when the cloud died by itself."""
    while True:
        received = signal.sigtimedwait(_WAKING, _CHECK_S)
        if received is not None and received.si_signo != signal.SIGCHLD:
            return True
        if cloud in processes.reap():
            return False
        if os.getppid() != parent:
            return True


def _stop_gently(cloud: int) -> None:
    """Ask the cloud to end, so that its log is complete; what is left after a while is killed by the caller."""
    processes.send_signal(cloud, signal.SIGTERM)
    waited = 0.0
    while waited < _GRACE_S and cloud not in processes.reap():
        signal.sigtimedwait((signal.SIGCHLD,), _CHECK_S)
        waited += _CHECK_S


if __name__ == "__main__":
    sys.exit(main())
