"""What the command line says."""

from __future__ import annotations

import argparse
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

STACK_NAME = re.compile(r"^SpotrelayTest-[a-z0-9]{1,12}$")
TYPES = ("t3a.medium", "t3a.large")  # the cheapest with room for torch, and of one CPU: equal bits
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"


@dataclass(frozen=True)
class Options:
    """One acceptance test."""

    stack: str
    region: str | None = None  # None: as the AWS configuration says
    dollars: float = 0.5  # ceiling for machines
    minutes: float = 90.0  # ceiling for everything before the teardown
    types: tuple[str, ...] = TYPES
    image: str = UBUNTU
    instance_python: str = "/usr/bin/python3"
    volume_gib: int = 20
    steps: int = 1000
    every_steps: int = 40
    yes: bool = False
    teardown_only: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """The options; a mistake ends the program with status 2, before anything was made."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance_aws", description=__doc__)
    parser.add_argument("--region", help="AWS region; default: as your AWS configuration says")
    parser.add_argument("--dollars", type=_amount, default=Options.dollars, help="ceiling for machines (%(default)s)")
    parser.add_argument("--minutes", type=_amount, default=Options.minutes, help="ceiling for the time (%(default)s)")
    parser.add_argument("--types", default=",".join(TYPES), help="x86_64 types of one CPU family (%(default)s)")
    parser.add_argument("--image", default=UBUNTU, help="an Ubuntu AMI, or the SSM parameter that names one")
    parser.add_argument("--instance-python", default=Options.instance_python, help="Python ≥ 3.11 on that image")
    parser.add_argument("--volume-gib", type=int, default=Options.volume_gib, help="root volume (%(default)s)")
    parser.add_argument("--steps", type=int, default=Options.steps, help="of the training (%(default)s)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--teardown", metavar="STACK", help="only remove what a test that was killed left behind")
    given = parser.parse_args(arguments)
    if given.teardown and not STACK_NAME.match(given.teardown):
        parser.error(f"--teardown {given.teardown}: only stacks of this test, SpotrelayTest-…, are torn down")
    if given.steps < 10 * Options.every_steps:
        parser.error(f"--steps {given.steps}: at least {10 * Options.every_steps}, or it ends before it is interrupted")
    return Options(
        stack=given.teardown or f"SpotrelayTest-{secrets.token_hex(3)}",
        region=given.region,
        dollars=given.dollars,
        minutes=given.minutes,
        types=tuple(name.strip() for name in given.types.split(",") if name.strip()),
        image=given.image,
        instance_python=given.instance_python,
        volume_gib=given.volume_gib,
        steps=given.steps,
        yes=given.yes,
        teardown_only=bool(given.teardown),
    )


def _amount(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError("more than 0 and less than 1000 was expected")
    return value
