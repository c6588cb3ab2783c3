"""One instance's processes: started from its user data, stopped, woken and killed, all of them, always.

The host is never switched off by an instance. Four things see to that: the instance's own `shutdown` and its relatives
come first on its path; no process of it can gain rights (no sudo, no setuid); the capability to reboot is given up;
and the addresses of the host's message buses are replaced, so that no service manager is asked. A program that root
calls by its full path, on a host run by systemd, is beyond this: do not run strangers' user data as root.
"""

from __future__ import annotations

import gzip
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spotrelay.localcloud.ec2 import process_table
from spotrelay.localcloud.ec2.process_table import MARK, Census, Process
from spotrelay.localcloud.processes import Alias

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_SETTLE_S = 0.01
_PATIENCE_S = 20.0
_GZIP = b"\x1f\x8b"
_POWER_NAMES = ("shutdown", "poweroff", "halt")
_INIT_NAMES = ("init", "telinit")
_NOWHERE = "unix:path=/nonexistent"

_SWITCH = """#!/bin/sh
# The power switch of this emulated instance. It never touches the machine that the emulation runs on.
for word in "$@"; do
  case "$word" in
    -r | --reboot | reboot | kexec) echo "this emulated instance cannot reboot" >&2; exit 1 ;;
    -c | -k | --help) echo "this emulated instance knows only: shutdown [-h|-P] [now]" >&2; exit 1 ;;
  esac
done
echo halt > {power}
"""
_NO_REBOOT = """#!/bin/sh
echo "this emulated instance cannot reboot" >&2
exit 1
"""
_INIT = """#!/bin/sh
case "$1" in
  0) echo halt > {power} ;;
  *) echo "this emulated instance knows only: init 0" >&2; exit 1 ;;
esac
"""
_SYSTEMCTL = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    poweroff | halt) echo halt > {power}; exit 0 ;;
  esac
done
echo "this emulated instance has no service manager: systemctl $*" >&2
exit 1
"""


class MachineStuck(Exception):
    """Processes of an instance did not die of SIGKILL in time; look at the process table."""


@dataclass(frozen=True)
class Body:
    """What a machine is made from."""

    instance_id: str
    home: Path
    """a folder of its own"""
    user_data: bytes | None
    environment: Mapping[str, str]


class Machine:
    """The processes of one instance, below a supervisor of their own; thread-safe.

    Args:
        on_power: called with what the instance itself asks of its power switch (`halt`), once.
        on_loss: called when the supervisor died without being told to: the hardware is gone.
    """

    def __init__(self, body: Body, on_power: Callable[[str], None], on_loss: Callable[[], None]) -> None:
        self._body = body
        self._on_power = on_power
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._ended = False
        self._collected = False
        self._killing = threading.Lock()
        self.console = body.home / "console.log"
        (body.home / "tmp").mkdir(parents=True, exist_ok=True)
        self._scratch = Alias(body.home / "tmp")
        self.first_pid = 0
        self._process = self._start()
        self._listener = threading.Thread(target=self._listen, name=f"machine-{body.instance_id}", daemon=True)
        self._listener.start()

    @property
    def supervisor(self) -> int:
        """Process id of the supervisor, which is no process of the instance."""
        return self._process.pid

    def processes(self, census: Census | None = None) -> list[Process]:
        """The instance's living processes, now or at a census."""
        taken = census or Census()
        if self._collected:  # its process ids may belong to somebody else by now
            return taken.of(self._body.instance_id, None, None)
        return taken.of(self._body.instance_id, self._process.pid, self.first_pid or None)

    def stop(self) -> None:
        """SIGSTOP every process, new ones included, until all are stopped."""
        self._until(lambda process: not process.is_stopped, signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT every process."""
        process_table.send(self.processes(), signal.SIGCONT)

    def end_gently(self, grace_s: float) -> None:
        """What an operating system does when it goes down: SIGTERM, a while, SIGKILL."""
        process_table.send(self.processes(), signal.SIGTERM)
        self.wake()
        deadline = time.monotonic() + grace_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(_SETTLE_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL every process and the supervisor. Harmless when repeated.

        Raises:
            MachineStuck: something does not die.
        """
        with self._lock:
            self._ended = True
        with self._killing:
            if not self._collected:
                self._kill_group()
                self._until(lambda process: True, signal.SIGKILL)
                self._process.kill()
                self._process.wait()
                self._collected = True
                self._scratch.close()
            self._until(lambda process: True, signal.SIGKILL)

    def _kill_group(self) -> None:
        """All at once, before any of them can see another die."""
        if self.first_pid:
            try:
                os.killpg(self.first_pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def _until(self, still: Callable[[Process], bool], signum: signal.Signals) -> None:
        """Signal the processes for which `still` is true, until there is none."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            remaining = [process for process in self.processes() if still(process)]
            if not remaining:
                return
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in remaining)
                raise MachineStuck(f"processes {pids} of {self._body.instance_id} do not obey {signum.name}")
            process_table.send(remaining, signum)
            time.sleep(_SETTLE_S)

    def _start(self) -> subprocess.Popen[bytes]:
        home = self._body.home
        for name in ("bin", "root"):
            (home / name).mkdir(parents=True, exist_ok=True)
        power = home / "power"
        if not power.exists():
            os.mkfifo(power, 0o600)
        self._install_switches(power)
        script = self._install_script()
        command = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(power), script]
        with self.console.open("ab") as console:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                cwd=home / "root",
                env=self._environment(),
                start_new_session=True,
            )
        assert process.stdout is not None
        word, _, number = process.stdout.readline().decode().strip().partition(" ")
        if word != "started":
            process.kill()
            process.wait()
            raise MachineStuck(f"the supervisor of {self._body.instance_id} did not start; see {self.console}")
        self.first_pid = int(number)
        return process

    def _install_switches(self, power: Path) -> None:
        quoted = shlex.quote(str(power))
        programs = {name: _SWITCH.format(power=quoted) for name in _POWER_NAMES}
        programs |= {name: _INIT.format(power=quoted) for name in _INIT_NAMES}
        programs |= {"reboot": _NO_REBOOT, "systemctl": _SYSTEMCTL.format(power=quoted)}
        for name, text in programs.items():
            path = self._body.home / "bin" / name
            path.write_text(text)
            path.chmod(0o700)

    def _install_script(self) -> str:
        """Path of the user data as a program; empty where there is none, as for cloud-init a text without `#!`."""
        data = self._body.user_data or b""
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        path = self._body.home / "user-data"
        path.write_bytes(data)
        path.chmod(0o700)
        if data.startswith(b"#!"):
            return str(path)
        if data:
            with self.console.open("ab") as console:
                console.write(b"cloud-init: the user data does not begin with #! and is not run\n")
        return ""

    def _environment(self) -> dict[str, str]:
        """A clean environment; the instance's own switches come first on the path."""
        home = self._body.home
        host_path = os.environ.get("PATH", os.defpath)
        return {
            "LANG": "C.UTF-8",
            "HOME": str(home / "root"),
            "TMPDIR": self._scratch.path,
            "DBUS_SYSTEM_BUS_ADDRESS": _NOWHERE,
            "DBUS_SESSION_BUS_ADDRESS": _NOWHERE,
            **self._body.environment,
            "PATH": os.pathsep.join([str(home / "bin"), str(Path(sys.executable).parent), host_path]),
            MARK: self._body.instance_id,
        }

    def _listen(self) -> None:
        assert self._process.stdout is not None
        asked = False
        for line in self._process.stdout:
            word = line.decode().split()[0]
            if word == "halt" and not asked:
                asked = True
                self._on_power(word)
            elif word == "ended":
                with self.console.open("ab") as console:
                    console.write(b"cloud-init: the user data " + line)
        with self._lock:
            lost = not self._ended
        if lost:
            self._on_loss()
