"""What a checkpoint costs: the trainer shim, other libraries and the least that physics asks for, in one run.

A GPT with AdamW in 32 bits on the CPU is trained and checkpointed to an S3 endpoint in memory, over HTTP on
loopback. Each system runs in fresh processes, which take turns; the first save of each is dropped, and what it
restores is compared with what it saved, bit by bit. Peers that are not installed are left out and named.

Usage: python -m benchmarks.checkpoint [--quick] [--systems a,b] [--sizes '0.5 GB,1.5 GB'] [--real]
The full run writes its tables into docs/performance.md. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.checkpoint.plane import plane
from benchmarks.checkpoint.rounds import Play, Scale
from benchmarks.checkpoint.sink import sink
from benchmarks.checkpoint.summary import summary
from benchmarks.checkpoint.systems import SYSTEMS

REAL = {"bytes_per_s": 90e6, "first_byte_s": 0.02}
GB = 10**9
QUICK = Scale(("0.1 GB",), rounds=1, pairs=1, damage="0.1 GB", memory=GB // 2)
FULL = Scale(("0.5 GB", "1.5 GB"), rounds=3, pairs=1, damage="0.1 GB", memory=6 * GB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.1 GB, one round; changes no document")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--sizes", help="of the state, instead of both")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--real", action="store_true", help="an endpoint as slow as S3: 90 MB/s a connection, 20 ms")
    parser.add_argument("--no-page", action="store_true", help="leave docs/performance.md as it is")
    arguments = parser.parse_args()
    scale = (QUICK if arguments.quick else FULL).changed(arguments.sizes, arguments.rounds)
    names = arguments.systems.split(",")
    unknown = [name for name in names if name not in SYSTEMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        sink(scale.memory) as endpoint,
        plane(endpoint.endpoint, Path(scratch)) as control,
    ):
        if arguments.real:
            endpoint.pace(**REAL)
        play = Play(scale, names, endpoint, control, Path(scratch))
        result = summary(play.run(), scale)
    if not (arguments.quick or arguments.no_page or arguments.systems != ",".join(SYSTEMS)):
        from benchmarks import page

        page.write("checkpoint", result, page.busy())
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
