"""What runs on a host: starts, shows and ends the machines of a stack. Sent through each connection, never installed.

Standard library only, of Python 3.11 or newer on Linux. A machine is a folder, and the processes of this user that
carry its id in their environment: that survives a lost connection, needs no process id to be remembered, and finds
what a program has started in a session of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MACHINE = re.compile(r"h-[0-9a-f]{17}")
MARK = "SPOTRELAY_INSTANCE"  # variable that every process of a machine has
OF_THE_LOGIN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # a run speaks with its own credentials and nobody else's
KEPT = 20  # folders of machines that have ended; the log in them is all that is left of a boot that failed
LOOK_S = 0.05
KILL_S = 3.0  # a killed process is gone by then, or stands in the kernel
NEEDED = "import ssl, zipfile, ctypes, fcntl"  # of the standard library, by an agent: some builds leave parts out
SHOWN = ("machine", "run", "generation", "launch", "pool", "launched_at")

Answer = dict[str, Any]


def answer(ask: Answer) -> None:
    """Do what was asked, and say what came of it in one marked line: a login may print others."""
    if not Path("/proc/self/environ").exists():
        said: Answer = {"refused": "HostUnsupported", "why": "no /proc here: a host runs Linux"}
    else:
        said = OPERATIONS[ask["do"]](ask, _root(ask))
    sys.stdout.write("\nspotrelay:" + json.dumps(said) + "\n")
    sys.stdout.flush()


def start(ask: Answer, root: Path) -> Answer:
    """Start a machine, or find that its launch has started it before."""
    machine = _machine(ask)
    home = root / machine
    with _locked(root):
        known = _order(home)
        if known is not None and known["digest"] != ask["digest"]:
            return {"refused": "IdempotentParameterMismatch", "why": "the token was used with another request"}
        if known is not None and ((home / "started").exists() or members(machine)):
            return {"machine": machine}
        if known is None and (why := _no_room(ask, root)):
            return {"refused": "HostBusy", "why": why}
        if not (root / "agents" / ask["agent"]).is_dir():
            return {"need": "agent"}
        _begin(ask, root, home)
    return {"machine": machine}


def store(ask: Answer, root: Path) -> Answer:
    """Take in the agent's archive, whole or not at all; the rest of the input is its bytes."""
    body = sys.stdin.buffer.read()
    if hashlib.sha256(body).hexdigest() != ask["agent"]:
        return {"refused": "AgentDamaged", "why": "what arrived is not the agent that was sent"}
    final = root / "agents" / ask["agent"]
    with _locked(root):
        if final.is_dir():
            return {"stored": ask["agent"]}
        for older in (root / "agents").glob("*"):
            if not _alive(root):  # an agent at work may still import from its folder
                shutil.rmtree(older, ignore_errors=True)
        partial = final.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            archive.extractall(partial)
        partial.rename(final)
    return {"stored": ask["agent"]}


def show(ask: Answer, root: Path) -> Answer:
    """Every machine that this host remembers, with whether it lives and how long its rights last."""
    with _locked(root):
        _forget(root)
        return {"machines": [_shown(home, order) for home, order in _orders(root)]}


def renew(ask: Answer, root: Path) -> Answer:
    """Put fresh credentials beside a machine that lives."""
    machine = _machine(ask)
    alive = bool(members(machine))
    if alive:
        _write_rights(root / machine, ask["rights"])
    return {"renewed": alive}


def stop(ask: Answer, root: Path) -> Answer:
    """End a machine: ask its processes to go, and kill those that stay."""
    machine = _machine(ask)
    with _locked(root):
        if _order(root / machine) is not None:
            (root / machine / "started").touch()  # a launch that is sent again does not bring it back
    end(machine, ask["grace_s"])
    return {"alive": bool(members(machine))}


def check(ask: Answer, root: Path) -> Answer:
    """What a person wants to know before a run is sent here."""
    tried = subprocess.run([sys.executable, "-I", "-c", NEEDED], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return {"refused": "PythonIncomplete", "why": f"{sys.executable}: {tried.stderr.strip()[-200:]}"}
    gpus = 0
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        shown = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
        gpus = sum(line.startswith("GPU ") for line in shown.stdout.splitlines())
    free = shutil.disk_usage(root).free
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "gpus": gpus, "free_bytes": free, "at_work": _alive(root), "folder": str(root)}


OPERATIONS: dict[str, Callable[[Answer, Path], Answer]] = {
    "start": start, "store": store, "show": show, "renew": renew, "stop": stop, "check": check,
}  # fmt: skip


# one machine


def members(machine: str) -> list[int]:
    """Processes of this user that belong to a machine."""
    mark = f"{MARK}={machine}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def end(machine: str, grace_s: float, but: int = 0) -> None:
    """SIGTERM to all processes of a machine but one, and SIGKILL after the grace."""
    for number, bound_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_S)):
        until = time.monotonic() + bound_s
        told: set[int] = set()
        while left := [pid for pid in members(machine) if pid != but]:
            for pid in set(left) - told if number is signal.SIGTERM else left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            told.update(left)
            if time.monotonic() > until:
                break
            time.sleep(LOOK_S)


def supervise(home: Path) -> int:
    """Be the guard of a machine: whatever its agent leaves behind ends with it."""
    order = _order(home)
    assert order is not None
    agent = subprocess.Popen([sys.executable, "-I", order["agent_folder"]], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: agent.send_signal(signal.SIGTERM))
    code = agent.wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end(order["machine"], order["grace_s"], but=os.getpid())
    _empty(home)
    return code if 0 <= code < 256 else 1


def _begin(ask: Answer, root: Path, home: Path) -> None:
    """Write down a machine, then start it: a start that was cut off is repeated by the same launch."""
    home.mkdir(mode=0o700, exist_ok=True)
    _write_rights(home, ask["rights"])
    order = {k: v for k, v in ask.items() if k not in ("do", "rights")}
    order["agent_folder"] = str(root / "agents" / ask["agent"])
    _write(home / "order.json", json.dumps(order))
    work = home / "work"
    work.mkdir(exist_ok=True)
    (home / "keeper.py").write_text(ask["keeper"])
    config = f'[default]\ncredential_process = /bin/cat "{home / "rights.json"}"\n'
    _write(home / "aws-config", config)
    own = {
        "SPOTRELAY_WORK": str(work), "AWS_CONFIG_FILE": str(home / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),  # what the user keeps there would go first
    }  # fmt: skip
    inherited = {k: v for k, v in os.environ.items() if k not in OF_THE_LOGIN}
    inherited["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
    with (home / "log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-I", str(home / "keeper.py"), str(home)],
            env={**inherited, **ask["environment"], **own}, cwd=work,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (home / "started").touch()


def _empty(home: Path) -> None:
    """Leave of a machine that has ended its order and its log."""
    shutil.rmtree(home / "work", ignore_errors=True)
    (home / "rights.json").unlink(missing_ok=True)


def _write_rights(home: Path, rights: Answer) -> None:
    _write(home / "rights.json", json.dumps({"Version": 1, **rights}))


def _rights_end(home: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((home / "rights.json").read_text()).get("Expiration", ""))
    return ""


# all machines


def _root(ask: Answer) -> Path:
    root: Path = Path.home() / str(ask["folder"])
    (root / "agents").mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    return root


def _machine(ask: Answer) -> str:
    machine = str(ask["machine"])
    if not MACHINE.fullmatch(machine):
        raise ValueError(f"{machine!r} names no machine")
    return machine


def _orders(root: Path) -> list[tuple[Path, Answer]]:
    found = [(home, _order(home)) for home in sorted(root.glob("h-*"))]
    return [(home, order) for home, order in found if order is not None]


def _order(home: Path) -> Answer | None:
    try:
        return dict(json.loads((home / "order.json").read_text()))
    except (OSError, ValueError):
        return None


def _alive(root: Path) -> list[str]:
    return [order["machine"] for order in _at_work(root)]


def _at_work(root: Path) -> list[Answer]:
    return [order for _, order in _orders(root) if members(order["machine"])]


def _no_room(ask: Answer, root: Path) -> str:
    """Why this launch starts nothing here; empty when it may. Two attempts of one run never share a host's GPUs."""
    busy = _at_work(root)
    twin = next((order["machine"] for order in busy if order["run"] == ask["run"]), "")
    if twin:
        return f"{twin} of the same run is still at work here"
    if len(busy) < ask["slots"]:
        return ""
    return f"{', '.join(order['machine'] for order in busy)} is at work here, and slots is {ask['slots']}"


def _shown(home: Path, order: Answer) -> Answer:
    told = {name: order[name] for name in SHOWN}
    return {**told, "alive": bool(members(order["machine"])), "rights_end": _rights_end(home)}


def _forget(root: Path) -> None:
    """Remove what is left of machines that ended long ago, and the work of one that was killed with its guard."""
    ended = [home for home, order in _orders(root) if not members(order["machine"]) and (home / "started").exists()]
    ended.sort(key=lambda home: home.stat().st_mtime, reverse=True)
    for number, home in enumerate(ended):
        _empty(home)
        if number >= KEPT:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One at a time on this host; whoever dies lets go."""
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    """A file for this user alone, that is either the old one or the new one."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    part.rename(path)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1])))
