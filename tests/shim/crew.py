"""Several ranks at once: a process that imports torch once and forks a child for each rank of each request.

The children meet over gloo on loopback through a file, and run one function of `tests.shim.fsdp_scenes`.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotrelay.testing.objects import MemoryStream

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


@dataclass
class Ended:
    """How one rank ended."""

    status: int  # negative: by that signal
    said: str  # on stdout and stderr
    outcome: Any  # what its scene returned, if it came to its end


class Flipping:
    """A bucket that damages what one rank reads: every object whose key the fault describes, one bit each."""

    def __init__(self, objects: Any, fault: dict[str, Any]) -> None:
        self._objects = objects
        self._about = re.compile(fault["about"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def stream(self, key: str, version_id: str | None = None, start: int = 0) -> Any:
        if not self._about.search(key):
            return self._objects.stream(key, version_id, start)
        body: bytes = self._objects.get(key, version_id)
        return MemoryStream(key, body[:-1] + bytes([body[-1] ^ 1]), start)


class Crew:
    """Runs scenes on as many ranks as asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.shim.crew"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )

    def run(
        self,
        ranks: int,
        scene: str,
        environment: dict[str, str],
        arguments: dict[str, Any] | None = None,
        fault: dict[str, Any] | None = None,
    ) -> list[Ended]:
        """One scene on every rank from its start to its end.

        Args:
            fault: where one rank dies: rank, call, about (an expression for the arguments), moment; or the moment
                "flip": what it reads is damaged.
        """
        request = {
            "ranks": ranks,
            "scene": scene,
            "environment": environment,
            "arguments": arguments or {},
            "fault": fault or {},
            "folder": str(self._folder / secrets.token_hex(4)),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return [Ended(**each) for each in json.loads(self._process.stdout.readline())]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def _serve(request: dict[str, Any]) -> list[dict[str, Any]]:
    folder = Path(request["folder"])
    folder.mkdir(parents=True)
    children = {_fork(request, rank, folder): rank for rank in range(request["ranks"])}
    statuses = _awaited(children)
    return [
        {
            "status": statuses[rank],
            "said": (folder / f"{rank}.log").read_text(),
            "outcome": _outcome(folder / f"{rank}.json"),
        }
        for rank in range(request["ranks"])
    ]


def _fork(request: dict[str, Any], rank: int, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        descriptor = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.register(signal.SIGUSR1, sys.__stderr__, all_threads=True)
        (folder / f"{rank}.json").write_text(json.dumps(_play(request, rank, folder)))
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must end here, whatever happens
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _play(request: dict[str, Any], rank: int, folder: Path) -> Any:
    import torch.distributed as dist

    from tests.shim import fsdp_scenes
    from tests.shim.nursery import SHARD_BYTES, Deadly
    from trainer_shim import shards, wiring

    for name in [name for name in os.environ if name.startswith("SPOTRELAY_")]:
        del os.environ[name]
    os.environ.update({**request["environment"], "RANK": str(rank), "WORLD_SIZE": str(request["ranks"])})
    fault = request["fault"] if request["fault"].get("rank") == rank else {}
    connect = wiring.connect

    def deadly(identity: Any) -> wiring.Ports:
        ports = connect(identity)
        if fault.get("moment") == "flip":
            return wiring.Ports(ports.store, Flipping(ports.objects, fault), ports.publisher)
        return wiring.Ports(Deadly(ports.store, fault), Deadly(ports.objects, fault), Deadly(ports.publisher, fault))

    wiring.connect = deadly
    shards.LIMIT = SHARD_BYTES
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=request["ranks"])
    return getattr(fsdp_scenes, request["scene"])(request["arguments"])


def _awaited(children: dict[int, int]) -> dict[int, int]:
    statuses: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(statuses) < len(children):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            statuses[children[pid]] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > deadline:
            for each, rank in children.items():
                if rank not in statuses:
                    os.kill(each, signal.SIGUSR1)  # it writes down where it stands
            time.sleep(1)
            for each, rank in children.items():
                if rank not in statuses:
                    os.kill(each, signal.SIGKILL)
        else:
            time.sleep(0.01)
    return statuses


def _outcome(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    """Serve until the input ends."""
    import torch

    import tests.shim.fsdp_scenes  # noqa: F401
    from tests.shim.nursery import _read_service_models

    torch.set_num_threads(1)
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter]).step()  # imports half of torch, once
    _read_service_models()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_serve(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
