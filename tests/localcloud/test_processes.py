"""No process escapes: neither by a double fork nor by a session of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from spotrelay.localcloud import processes
from tests.localcloud.kit import eventually

ESCAPES = """
import json, os, subprocess, sys, time
from spotrelay.localcloud import processes
processes.become_subreaper()
lines = ["import os, time", "if os.fork(): os._exit(0)", "os.setsid()", "print(os.getpid(), flush=True)"]
script = "\\n".join([*lines, "time.sleep(600)"])
first = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
escaped = int(first.stdout.readline())
first.wait()
seen = escaped in processes.descendants(os.getpid())
left = processes.kill_descendants()
print(json.dumps({"escaped": escaped, "seen": seen, "left": left}))
"""


def test_a_process_that_forked_away_and_took_a_session_is_found_and_killed() -> None:
    done = subprocess.run([sys.executable, "-c", ESCAPES], capture_output=True, check=True, text=True)

    told = json.loads(done.stdout)
    assert told["seen"]
    assert told["left"] == []
    with pytest.raises(ProcessLookupError):
        os.kill(told["escaped"], 0)


def test_a_stopped_process_shows_as_stopped_and_a_dead_one_not_at_all() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

    sleeper.send_signal(signal.SIGSTOP)
    eventually(lambda: processes.states_below(os.getpid()).get(sleeper.pid) == "T", "the process is stopped")
    sleeper.kill()
    sleeper.wait()

    assert sleeper.pid not in processes.states_below(os.getpid())


def test_a_signal_to_a_process_that_is_gone_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert processes.send_signal(gone.pid, signal.SIGTERM) is False
