"""The cloud's process: MiniStack, our EC2 and our Lambda runtime behind one loopback port.

Started by `spotrelay.localcloud.server`, which sees to it that nothing outlives it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from spotrelay.localcloud import emulator, patches, processes
from spotrelay.localcloud.control import Control, MachineRoom
from spotrelay.localcloud.ec2.service import Ec2
from spotrelay.localcloud.front import Front
from spotrelay.localcloud.lambdas import Environments
from spotrelay.localcloud.requestlog import RequestLog
from spotrelay.localcloud.schedules import Schedules
from spotrelay.localcloud.triggers import Triggers
from spotrelay.localcloud.world import EmulatedWorld

ENVIRONMENTS_PER_FUNCTION = 4
_BACKLOG = 1024
_KEEP_ALIVE_S = 75


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m spotrelay.localcloud.host")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--way-in", default=None)
    options = parser.parse_args(arguments)
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != options.parent:
        return 1
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.environ.pop("PYTHONPATH", None)
    asyncio.run(_serve(options.home.resolve(), options.time_scale, options.way_in))
    return 0


async def _serve(home: Path, time_scale: float, way_in: str | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    port = listener.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    way_in = way_in or endpoint
    access_key, secret_key, token = "AKIA" + secrets.token_hex(8).upper(), secrets.token_hex(20), secrets.token_hex(20)
    emulator.configure(home, port, access_key, secret_key)
    emulated = emulator.load()
    emulator.quicken_checksums()
    emulator.know_ways_in()
    emulator.complete_conditions()
    emulator.forward_across_regions()
    emulator.replicate_as_s3()
    environments = Environments(home, way_in, emulator.function_credentials)
    emulator.run_lambdas_with(environments, ENVIRONMENTS_PER_FUNCTION)

    world = EmulatedWorld(way_in, lambda data: patches.scale_user_data(data, time_scale))
    ec2 = Ec2(world, home, time_scale)
    room = MachineRoom(ec2, world)
    emulator.know_machines(room.arn_of)
    triggers, schedules, log = Triggers(), Schedules(way_in), RequestLog(home / "requests.jsonl")
    control = Control(ec2, world, triggers, schedules)
    front = Front(emulated, ec2, room, triggers, log, control, token)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    ready = {
        "endpoint": endpoint,
        "token": token,
        "pid": os.getpid(),
        "access_key": access_key,
        "secret_key": secret_key,
        "region": emulator.HOME_REGION,
    }
    try:
        await _listen(front, listener, stop, ready)
    finally:
        schedules.close()
        ec2.close()
        emulator.stop_lambdas()
        log.close()


async def _listen(front: Front, listener: socket.socket, stop: asyncio.Event, ready: dict[str, Any]) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = _KEEP_ALIVE_S
    config.graceful_timeout = 0.5
    config.shutdown_timeout = 1.0
    config.accesslog = None
    serving = asyncio.ensure_future(serve(front, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe any more; it must not fill up
    await serving


if __name__ == "__main__":
    sys.exit(main())
