"""What stands in for an instance's hardware: starts its first process, keeps its orphans, hears its power switch.

Run as a script by `machine.py`, with nothing but the standard library (`python -I -S supervisor.py POWER SCRIPT`).

- It is a subreaper: a process of the instance cannot leave the tree below it by forking twice.
- It gives up, for all below it, what could switch off the host: setuid programs and the reboot capability.
- Standard input is a pipe from the host. When it ends, the host is gone, and everything below is killed.
- Standard output tells the host, one word a line: `started PID`, `ended STATUS`, and what comes out of the power
  switch, a FIFO into which the instance's own `shutdown` writes.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAP_SYS_BOOT = 22
_TURN_S = 0.25
_SETTLE_S = 0.01


def main(power: str, script: str) -> int:
    """Supervise until the host is gone or kills this process."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    if not _confine():
        return 1
    switch = os.open(power, os.O_RDWR | os.O_NONBLOCK)
    wakeup, alarm = os.pipe()
    for end in (wakeup, alarm):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(alarm)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    first = _start(script) if script else 0
    _tell(f"started {first}")
    while True:
        ready, _, _ = select.select([0, switch, wakeup], [], [], _TURN_S)
        if wakeup in ready:
            os.read(wakeup, 4096)
        _collect(first)
        if switch in ready:
            for word in os.read(switch, 4096).decode("ascii", "replace").split():
                _tell(word)
        if 0 in ready and not os.read(0, 1):
            _kill_everything()
            return 0


def _confine() -> bool:
    """Keep orphans here, and from everything below, for good, the means to switch off the host: no sudo, no reboot."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_CAPBSET_DROP, _CAP_SYS_BOOT, 0, 0, 0)  # refused to anyone but root, who alone would have it
    return all(prctl(option, 1, 0, 0, 0) == 0 for option in (_PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER))


def _start(script: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    void = os.open(os.devnull, os.O_RDONLY)
    os.dup2(void, 0)
    os.dup2(2, 1)
    os.closerange(3, 4096)
    try:
        os.execv(script, [script])  # noqa: S606  # the shebang names the shell
    except OSError as why:
        os.write(2, f"cloud-init: the user data cannot be executed: {why}\n".encode())
    os._exit(127)


def _tell(line: str) -> None:
    try:
        os.write(1, f"{line}\n".encode())
    except BrokenPipeError:
        return  # the host is gone: standard input says so too, and that is acted upon


def _collect(first: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == first:
            _tell(f"ended {os.waitstatus_to_exitcode(status)}")


def _kill_everything() -> None:
    """SIGKILL every descendant until there is none; what is orphaned meanwhile becomes a child of this process."""
    while True:
        below = _descendants(os.getpid())
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _collect(0)
        if not below:
            return
        time.sleep(_SETTLE_S)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # pathlib would treble this script's start
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as stat:  # noqa: PTH123
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [ancestor]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
