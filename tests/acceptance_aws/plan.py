"""What will be done and what it may cost, in words, and the person's consent."""

from __future__ import annotations

import sys

from tests.acceptance_aws.options import Options

USUAL_HOURS = 0.5  # of each of the two runs' machines
MACHINES = 3  # two runs, and one replacement beside the machine that is taken back


def plan(options: Options, account: str, region: str, dearest: float) -> str:
    """The announcement.

    Args:
        dearest: dollars an hour of the dearest pool, volume and address included.
    """
    if options.teardown_only:
        return f"Account {account}, {region}: removes stack {options.stack} and everything that its test made."
    usual = MACHINES * USUAL_HOURS * dearest
    return f"""Account {account}, region {region}. This test
  1. deploys the stack {options.stack} with the pinned CDK command line;
  2. submits two runs of examples/gpt_stdlib.py, {options.steps} steps, on Spot ({", ".join(options.types)});
  3. interrupts the machine of one of them through AWS FIS, with a role and a template made for that;
  4. waits for both to end, and compares them;
  5. ends every machine, destroys the stack, and deletes its table, its buckets, the role and the template.
Step 5 follows a failure and Ctrl-C too. What stays: the assets in the bucket of `cdk bootstrap`.

Machines now cost up to {dearest:.4f} dollars an hour here, volume and address included: about {usual:.2f}
dollars in all. At {options.dollars:.2f} dollars, or after {options.minutes:.0f} minutes, everything is stopped.
Not counted: DynamoDB, S3, Lambda, FIS and events of a few runs, cents in all."""


def agreed(options: Options) -> bool:
    """Whether the person wants that."""
    if options.yes:
        return True
    if not sys.stdin.isatty():
        return False
    return input("Go on? Type yes: ").strip().lower() == "yes"
