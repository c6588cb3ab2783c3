"""From the command line to the last line: consent, the play, the verdict, and in any case the teardown."""

from __future__ import annotations

import json
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from botocore.exceptions import ClientError

from spotrelay.aws.clients import Clients
from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.console.wiring import Where, clients_of
from spotrelay.core.errors import SpotrelayError
from tests.acceptance_aws.cdk import CdkDeployment, Deployment, check_cdk
from tests.acceptance_aws.evidence import Evidence
from tests.acceptance_aws.failure import NotReady, Told
from tests.acceptance_aws.interruption import Interruption
from tests.acceptance_aws.money import ask_prices
from tests.acceptance_aws.options import Options, parse
from tests.acceptance_aws.plan import agreed, plan
from tests.acceptance_aws.play import Account, Play, Submissions
from tests.acceptance_aws.teardown import Teardown
from tests.acceptance_aws.verdict import figures, judge
from tests.acceptance_aws.watch import Clock
from tests.acceptance_aws.workload import make_code, submission

OK, FAILED, NOTHING_DONE = 0, 1, 2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"  # SSM parameter that `cdk bootstrap` leaves


@dataclass
class Outcome:
    """What the last line says."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    code: int = OK


def main(arguments: Sequence[str]) -> int:
    """Run the test; the exit code."""
    options = parse(arguments)
    try:
        account, text = _account(options)
        if not options.teardown_only:
            check_cdk()
            _check_bootstrap(account.clients)
        say(text)
        if not agreed(options):
            raise NotReady("nothing was done: the answer was not yes (--yes answers for you)")
    except SpotrelayError as error:
        say(str(error))
        print(json.dumps({"verdict": "not run", "problems": [str(error)]}))
        return NOTHING_DONE
    with tempfile.TemporaryDirectory(prefix="spotrelay-acceptance-") as scratch:
        deployment = CdkDeployment(options, account.clients.region, Path(scratch))
        if options.teardown_only:
            return perform(options, account, deployment, None)
        code = make_code(Path(scratch) / "code")
        return perform(options, account, deployment, lambda run_id: submission(options, run_id, code))


def perform(options: Options, account: Account, deployment: Deployment, submissions: Submissions | None) -> int:
    """Play and judge, then tear down whatever happened; prints the last line. Without submissions: teardown only."""
    started, outcome = time.monotonic(), Outcome()
    clients = account.clients.client
    interruption = Interruption(clients("fis"), clients("iam"), options.stack, account.clock.sleep)
    play = Play(options, account, deployment, interruption)
    with _signals_end_it():
        try:
            try:
                if submissions is not None:
                    _take_in(play.run(submissions), outcome)
            finally:
                _ignore_signals()  # nothing stops the teardown; a signal that came just before has done this already
        except BaseException as error:  # noqa: BLE001  # a mistake of ours must not leave machines behind either
            _failed(outcome, _explained(error), code=128 + error.signum if isinstance(error, Told) else FAILED)
        left = Teardown(options.stack, clients, deployment, interruption, account.clock, account.say).run()
    if left:
        _failed(outcome, *left, code=outcome.code or FAILED)
    last = {
        "verdict": "passed" if outcome.code == OK else "failed",
        "problems": outcome.problems,
        **outcome.figures,
        "dollars": round(play.dollars, 4),
        "ceiling": options.dollars,
        "left_behind": left,
        "stack": options.stack,
        "region": account.clients.region,
        "wall_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(last), flush=True)
    return outcome.code


def say(text: str) -> None:
    """Tell the person."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def _take_in(evidence: Evidence, outcome: Outcome) -> None:
    outcome.figures = figures(evidence)
    for finding in judge(evidence):
        say(f"{'ok    ' if finding.ok else 'FAILED'} {finding.rule}")
        if not finding.ok:
            _failed(outcome, *(f"{finding.rule}: {problem}" for problem in finding.problems))


def _failed(outcome: Outcome, *problems: str, code: int = FAILED) -> None:
    for problem in problems:
        say(f"FAILED {problem}")
    outcome.problems += problems
    outcome.code = code


def _explained(error: BaseException) -> str:
    if isinstance(error, SpotrelayError):
        return str(error)
    if isinstance(error, Told):
        return f"ended by {signal.Signals(error.signum).name}"
    if isinstance(error, FAILURES):
        return f"AWS refused: {error}"
    return f"a mistake of this test: {''.join(traceback.format_exception(error))}"


def _account(options: Options) -> tuple[Account, str]:
    """Where the credentials point, and what is to be announced there.

    Raises:
        NotReady, Unavailable: no credentials, no region, no answer or no price.
    """
    clients = clients_of(Where(options.stack, options.region))
    try:
        caller = clients.client("sts").get_caller_identity()
    except FAILURES as error:
        raise failed_read(error, "asking AWS who we are") from error
    number, partition = caller["Account"], caller["Arn"].split(":")[1]
    prices = ask_prices(clients.client("ec2"), options.types, options.volume_gib, datetime.now(UTC))
    prefix = f"arn:{partition}:ec2:{clients.region}:{number}:instance/"
    account = Account(clients, lambda i: prefix + i, prices, Clock(lambda: datetime.now(UTC), time.sleep), say)
    return account, plan(options, number, clients.region, prices.dearest)


def _check_bootstrap(clients: Clients) -> None:
    try:
        clients.client("ssm").get_parameter(Name=BOOTSTRAP)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise failed_read(error, "looking for the CDK bootstrap") from error
        raise NotReady(f"run `npx cdk bootstrap` once for this account in {clients.region}") from error


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Within, a signal unwinds to the teardown."""

    def on_signal(signum: int, frame: FrameType | None) -> NoReturn:
        _ignore_signals()
        raise Told(signum)

    before = {each: signal.signal(each, on_signal) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore_signals() -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
