"""Which S3 client moves checkpoints best: from memory to objects and back, in fresh processes that take turns.

Each client creates the same objects out of one large warm buffer, and reads them into another one, over as many
connections as it was given (some choose themselves). The endpoint is the benchmark's own sink; what comes back
is compared. `raw` is the standard library's sockets without an SDK, and `memcpy` a copy of the bytes.

Usage: python -m benchmarks.s3_clients [--rounds N] [--size MIB] [--part MIB] [--connections N] [--real]
--real makes every connection as slow as one to S3 from EC2: 90 MB/s, 20 ms to the first byte.
The last line is one JSON object. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.checkpoint.sink import Sink, sink
from benchmarks.clients.client import BUCKET, KEYS, REGION, Client, Part, warm

MIB = 2**20
ROOT = Path(__file__).parents[1]
LONGEST_S = 120.0  # for one client's turn
REAL = {"bytes_per_s": 90e6, "first_byte_s": 0.02}


@dataclass(frozen=True)
class Candidate:
    """A client, and what is known of it besides its speed."""

    module: str
    name: str
    memory: str  # copies of the bytes in user space for a put and a get
    create_only: bool
    version: bool  # whether a put tells the version that it made
    checksum: str  # what S3 compares a put with


CANDIDATES = {
    "raw": Candidate("plain", "PlainClient", "0 / 0", True, True, "crc32c"),
    "boto3": Candidate("boto", "BotoClient", "1 / 2", True, True, "crc32c"),
    "boto3, file over memory": Candidate("boto", "FileClient", "0 / 2", True, True, "crc32c"),
    "boto3, our adapter": Candidate("boto", "AdapterClient", "0 / 2", True, True, "crc32c"),
    "boto3, memory as body": Candidate("boto", "HookClient", "0 / 0", True, True, "crc32c"),
    "awscrt": Candidate("crt", "CrtClient", "1 / 2", True, True, "crc32c"),
    "s3transfer with CRT": Candidate("crt", "TransferClient", "1 / 2", False, False, "crc32c"),
    "obstore": Candidate("rust", "ObstoreClient", "0 / 1", True, True, "crc64nvme"),
    "s3torchconnectorclient": Candidate("rust", "MountpointClient", "2 / 2", False, False, "crc32c of each part"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512, help="MiB in all")
    parser.add_argument("--part", type=int, default=16, help="MiB of one object")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--real", action="store_true", help="as slow as S3 from EC2")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in a process of its own: this client at this endpoint
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_measure(CANDIDATES[arguments.one], arguments)))
        return 0
    with sink((arguments.size + 64) * MIB) as endpoint:
        if arguments.real:
            endpoint.pace(**REAL)
        result = _rounds(endpoint, arguments)
    print(json.dumps(result))
    return 0


def _rounds(endpoint: Sink, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    failed: dict[str, str] = {}
    for number in range(arguments.rounds):
        for name in CANDIDATES:
            if name in failed:
                continue
            try:
                found[name].append(_turn(name, endpoint, arguments))
            except (subprocess.SubprocessError, ValueError) as error:
                failed[name] = str(getattr(error, "stderr", "") or error).strip()[-300:]
            _forget_all(endpoint)
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    gb = arguments.size * MIB / 1e9
    clients = {
        name: {"failed": failed[name]} if name in failed else _summary(CANDIDATES[name], found[name], gb)
        for name in CANDIDATES
    }
    about = {key: getattr(arguments, key) for key in ("rounds", "size", "part", "connections", "real")}
    return {**about, "clients": clients}


def _turn(name: str, endpoint: Sink, arguments: argparse.Namespace) -> dict[str, float]:
    told = [f"--{key}={getattr(arguments, key)}" for key in ("size", "part", "connections")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.s3_clients", "--one", name, "--endpoint", endpoint.endpoint, *told],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_S,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _summary(candidate: Candidate, turns: list[dict[str, float]], gb: float) -> dict[str, Any]:
    medians = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
    return {
        "put_gb_s": round(gb / medians["put_s"], 2),
        "get_gb_s": round(gb / medians["get_s"], 2),
        "put_cpu_s": round(medians["put_cpu_s"] / gb, 2),
        "get_cpu_s": round(medians["get_cpu_s"] / gb, 2),
        "import_s": round(medians["import_s"], 2),
        "copies": candidate.memory,
        "create_only": candidate.create_only,
        "version": candidate.version,
        "checksum": candidate.checksum,
    }


def _measure(candidate: Candidate, arguments: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: put and get everything, and compare."""
    begun = time.monotonic()
    make: Callable[[str, int], Client] = getattr(
        import_module(f"benchmarks.clients.{candidate.module}"), candidate.name
    )
    client = make(arguments.endpoint, arguments.connections)
    import_s = time.monotonic() - begun
    source, target = _filled(arguments.size * MIB), warm(arguments.size * MIB)
    small = [Part(f"warm-up-{number}", source[: 2**16]) for number in range(arguments.connections)]
    client.put(small)
    client.get([Part(part.key, target[: 2**16]) for part in small])
    step = arguments.part * MIB
    places = [(f"part-{start:012d}", slice(start, start + step)) for start in range(0, len(source), step)]
    put = _timed(lambda: client.put([Part(key, source[place]) for key, place in places]))
    get = _timed(lambda: client.get([Part(key, target[place]) for key, place in places]))
    if source != target:
        raise ValueError("what came back is not what was put")
    return {"put_s": put[0], "put_cpu_s": put[1], "get_s": get[0], "get_cpu_s": get[1], "import_s": import_s}


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the wall and of this process's CPUs."""
    cpu, wall = _cpu(), time.monotonic()
    work()
    return time.monotonic() - wall, _cpu() - cpu


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _filled(size: int) -> memoryview:
    """A warm buffer in which every part is another one."""
    view, tile = warm(size), os.urandom(MIB)
    for number, start in enumerate(range(0, size, MIB)):
        view[start : start + MIB] = tile
        view[start : start + 8] = number.to_bytes(8, "little")
    return view


def _forget_all(endpoint: Sink) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint.endpoint, region_name=REGION, **KEYS)
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])


if __name__ == "__main__":
    sys.exit(main())
