"""An embedded cloud to play with, until its standard input ends or Ctrl-C.

    python -m spotrelay.localcloud [--home DIR] [--time-scale 0.1] [--assembly DIR]

A shell that has read the file `environment` in its folder is logged in to it. An instance's id, typed here, is
reclaimed with a notice.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TextIO

import spotrelay
from spotrelay.localcloud.client import CloudFailed, LocalCloud
from spotrelay.localcloud.deploy import DeployFailed

ASSEMBLY = Path(spotrelay.__file__).parent / "_assembly"


def main(arguments: list[str] | None = None) -> int:
    """Be the cloud; 0 when it was ended from here, 1 when it could not be made."""
    parser = argparse.ArgumentParser(prog="python -m spotrelay.localcloud", description=__doc__)
    parser.add_argument(
        "--home", type=Path, default=Path(".spotrelay/cloud"), help="the only folder that is written in"
    )
    parser.add_argument("--time-scale", type=float, default=0.1, help="how much of each real waiting time is waited")
    parser.add_argument("--assembly", type=Path, default=ASSEMBLY, help="the stack, as `make assembly` builds it")
    options = parser.parse_args(arguments)
    try:
        with LocalCloud(options.home, options.time_scale) as cloud:
            cloud.deploy(options.assembly)
            _welcome(cloud)
            _listen(cloud, sys.stdin)
    except (CloudFailed, DeployFailed) as error:
        sys.stderr.write(f"spotrelay: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    return 0


def _welcome(cloud: LocalCloud) -> None:
    file = cloud.home / "environment"
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in cloud.environment().items()]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    sys.stdout.write(
        f"The stack is deployed at {cloud.endpoint}. In another shell:\n\n"
        f"    . {shlex.quote(str(file))}\n    spotrelay doctor\n\n"
        "Type an instance's id here to reclaim it with a notice; Ctrl-C ends the cloud.\n"
    )
    sys.stdout.flush()


def _listen(cloud: LocalCloud, typed: TextIO) -> None:
    for line in typed:
        if not line.strip():
            continue
        try:
            cloud.interrupt(line.strip())
            sys.stdout.write(f"{line.strip()} gets its notice\n")
        except CloudFailed as error:
            sys.stdout.write(f"{error}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
