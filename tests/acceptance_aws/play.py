"""The test itself: deploy, train twice, interrupt once, compare. Whoever calls it tears down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from spotrelay.aws.clients import Clients
from spotrelay.aws.stack import Stack, find_stack
from spotrelay.console.submit import Submission, send
from spotrelay.console.wiring import services_of
from spotrelay.core.run import Run
from tests.acceptance_aws.cdk import Deployment
from tests.acceptance_aws.evidence import Evidence, Trained, gather
from tests.acceptance_aws.failure import AcceptanceFailed
from tests.acceptance_aws.interruption import Interruption
from tests.acceptance_aws.machines import Ledger
from tests.acceptance_aws.money import Prices
from tests.acceptance_aws.options import Options
from tests.acceptance_aws.watch import Bounds, Clock, Watch

INTERRUPTED = "interrupted"
REFERENCE = "left-alone"
LAST_MACHINES = timedelta(minutes=5)  # for the last ones to end by themselves

Submissions = Callable[[str], Submission]  # from a run's id


@dataclass
class Account:
    """Where it is played."""

    clients: Clients
    arn: Callable[[str], str]  # of an instance, from its id
    prices: Prices
    clock: Clock
    say: Callable[[str], None]


class Play:
    """One performance; what was spent is known at every moment of it."""

    def __init__(self, options: Options, account: Account, deployment: Deployment, interruption: Interruption) -> None:
        self._options = options
        self._account = account
        self._deployment = deployment
        self._interruption = interruption
        self._watch: Watch | None = None

    @property
    def dollars(self) -> float:
        """Spent on machines so far."""
        return self._watch.dollars if self._watch else 0.0

    def run(self, submissions: Submissions) -> Evidence:
        """Play it.

        Raises:
            AcceptanceFailed: it could not be played to its end.
        """
        account, options = self._account, self._options
        until = account.clock.now() + timedelta(minutes=options.minutes)
        account.say(f"deploying {options.stack}")
        self._deployment.deploy()
        stack = find_stack(account.clients.client("cloudformation"), options.stack)
        services = services_of(account.clients, stack)
        ledger = Ledger(account.clients.client("ec2"), options.stack, account.clock.now)
        bounds = Bounds(options.dollars, until)
        self._watch = watch = Watch(services, ledger, account.prices, bounds, account.clock, account.say)
        send(submissions(INTERRUPTED), services)
        taken = self._interrupt(watch)
        # Only now: a new account may run few Spot machines at once, and the handover took two.
        send(submissions(REFERENCE), services)
        runs = watch.ends(INTERRUPTED, REFERENCE)
        still_running = watch.empties(LAST_MACHINES)
        interrupted, reference = (self._gather(watch, stack, run) for run in runs)
        return Evidence(interrupted, reference, taken, still_running)

    def _interrupt(self, watch: Watch) -> str:
        taken = watch.machine_with_checkpoint(INTERRUPTED)
        self._account.say(f"interrupting {taken} through FIS")
        experiment = self._interruption.send(self._account.arn(taken))
        try:
            watch.loss_of(INTERRUPTED, taken)
        except AcceptanceFailed as error:
            reason = self._interruption.failure(experiment)
            raise AcceptanceFailed(f"{error}; FIS says: {reason}") if reason else error from error
        return taken

    def _gather(self, watch: Watch, stack: Stack, run: Run) -> Trained:
        dynamodb: Any = self._account.clients.client("dynamodb")
        s3: Any = self._account.clients.client("s3")
        seen = watch.ledger.seen
        return gather(watch.services, dynamodb, s3, stack.table, stack.bucket, run, seen)
