"""Starts training processes quickly: one process imports torch once and forks a child for each request.

Reads one JSON object per line (environment, arguments, where to die) and answers with one: the child's
exit status, negative for a signal, and what it wrote to stderr. A child is a session of its own, so that its
workers die with it.

The fault is put between the shim and its ports here, in the tests; the product knows nothing of it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from spotrelay.core.errors import Missing
from trainer_shim import shards, wiring

SHARD_BYTES = 5500  # so that the small model of the tests needs several shards


class Deadly:
    """A port that kills its process before or after the call that the fault describes."""

    def __init__(self, port: Any, fault: dict[str, Any]) -> None:
        self._port = port
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._port, name)
        if name != self._fault.get("call"):
            return target
        return lambda *args, **named: self._call(target, *args, **named)

    def _call(self, target: Any, *args: Any, **named: Any) -> Any:
        asked = repr([each for each in args if not isinstance(each, (bytes, memoryview))])
        here = re.search(self._fault["about"], asked) is not None
        if here and self._fault["moment"] == "held":
            while not Path(self._fault["until"]).exists():
                time.sleep(0.01)
        if here and self._fault["moment"] == "refused":
            raise Missing(f"{self._fault['call']} was refused by this test")
        if here and self._fault["moment"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = target(*args, **named)
        if here and self._fault["moment"] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def _ranks(request: dict[str, Any]) -> int:
    """As many children as there are ranks, as torchrun starts them; the status of the first that failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.setsid()
    size = request["ranks"]
    alive: dict[int, int] = {}
    for rank in range(size):
        about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        texts = {name: str(value) for name, value in about.items()}
        environment = {**request["environment"], **texts, "MASTER_ADDR": "127.0.0.1"}
        pid = os.fork()
        if pid == 0:
            fault = (request.get("fault") or {}).get(str(rank))
            _forked(lambda given={**request, "environment": environment, "fault": fault}: _child(given))
        alive[pid] = rank
    worst = 0
    while alive:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        print(f"rank {alive.pop(pid)} ended with {code}", file=sys.stderr, flush=True)
        worst = worst or code
        if code != 0 and request["arguments"].get("torchrun", True):
            for other in alive:  # as torchrun does it to those that are left
                os.kill(other, signal.SIGTERM)
    return worst if worst >= 0 else 128 - worst


def _child(request: dict[str, Any]) -> None:
    if "RANK" not in request["environment"]:
        os.setsid()
    for name in [name for name in os.environ if name.startswith("SPOTRELAY_")]:
        del os.environ[name]
    os.environ.update(request["environment"])
    fault = request.get("fault") or {}
    connect = wiring.connect

    def deadly(identity: Any) -> wiring.Ports:
        ports = connect(identity)
        made = wiring.Ports(Deadly(ports.store, fault), Deadly(ports.objects, fault), Deadly(ports.publisher, fault))
        if not request["arguments"].pop("uploader", False):
            return made
        assert ports.uploader is not None
        ports.uploader.ask = Deadly(ports.uploader, fault).ask  # type: ignore[method-assign]  # its carriers go there
        return replace(made, uploader=ports.uploader)

    wiring.connect = deadly
    shards.LIMIT = SHARD_BYTES
    if "RANK" in request["environment"]:
        importlib.import_module(_script(request)).main(request["arguments"])
        return
    from tests.shim import script

    script.main(request["arguments"])


def _script(request: dict[str, Any]) -> str:
    """The program of several ranks."""
    return str(request["arguments"].get("script", "tests.shim.team_script"))


def _forked(work: Callable[[], int | None]) -> NoReturn:
    code = 70
    try:
        code = work() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must end here, whatever happens
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    errors = Path(request["errors"])
    importlib.import_module(_script(request))  # once, for all children to come
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(descriptor, 1)
        _forked(lambda: _ranks(request) if request.get("ranks") else _child(request))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # its workers
    return {"status": os.waitstatus_to_exitcode(status), "said": errors.read_text()}


def _read_service_models() -> None:
    # Clients spend most of a second on them; a child inherits them with the loader.
    from spotrelay.aws import clients

    new_session = clients._session
    session = new_session()
    for service in ("dynamodb", "s3", "events"):
        session.create_client(service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    loader = session.get_component("data_loader")

    def prepared() -> Any:
        found = new_session()
        found.register_component("data_loader", loader)
        return found

    clients._session = prepared


def main() -> None:
    """Serve until the input ends."""
    import torch
    import torch.distributed
    import torch.nn.parallel

    import tests.shim.script  # noqa: F401
    import trainer_shim.frameworks.torch
    import trainer_shim.session  # noqa: F401

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
