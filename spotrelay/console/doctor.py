"""`spotrelay doctor`: one look at each thing a run stands on, before a run finds out by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from spotrelay.console import exits, host_checks
from spotrelay.console.wiring import Where, clients_of
from spotrelay.core.errors import Missing, SpotrelayError, Unavailable
from spotrelay.core.placement import Pool, Rung
from spotrelay.core.quotas import SPOT_QUOTAS

if TYPE_CHECKING:
    from spotrelay.aws.clients import Clients
    from spotrelay.aws.stack import Stack
    from spotrelay.core.hosts import Host

FOUNDATIONS = frozenset({"credentials", "stack"})  # without which nothing else can be looked at
DRY_RUN_TYPE = "c5.large"  # sold in every region; nothing is launched
DRY_RUN = "DryRunOperation"  # EC2's code for "would have worked"
NO_SUCH_QUOTA = "NoSuchResourceException"  # not every region has every kind of machine
NOT_LET_IN = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})


@dataclass(frozen=True)
class Check:
    """What one look found."""

    name: str
    state: str  # "ok", "failed", or "unknown" when it could not be looked at
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        sign = {"ok": "ok     ", "failed": "FAILED ", "unknown": "unknown"}[self.state]
        return f"{sign} {self.name:<12} {self.text}" + (f" - {self.remedy}" if self.remedy else "")


class Sick(Exception):
    """A look found something wrong."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


class Unseen(Exception):
    """A look could not be taken; that alone harms no run."""


def exit_code(checks: list[Check]) -> int:
    """0 when nothing failed; 4 when not even the stack was found, 6 when AWS did not answer; else 1."""
    wrong = {check.name for check in checks if check.state == "failed"}
    unseen = {check.name for check in checks if check.state == "unknown"}
    if wrong & FOUNDATIONS:
        return exits.NO_STACK
    if wrong:
        return exits.FAILED
    return exits.UNAVAILABLE if unseen & FOUNDATIONS else exits.OK


def examine(where: Where) -> list[Check]:
    """Every check in order; the later ones are left out when there is no stack to look at."""
    try:
        clients = clients_of(where)
    except SpotrelayError as error:
        return [Check("credentials", "failed", str(error))]
    return list(checks(clients, where.stack))


def checks(clients: Clients, name: str) -> Iterator[Check]:
    """The checks one after the other."""
    yield _look("credentials", lambda: _credentials(clients))
    from spotrelay.aws.stack import find_stack

    try:
        stack = find_stack(clients.client("cloudformation"), name)
    except SpotrelayError as error:
        yield _no_stack(error)
        return
    yield Check("stack", "ok", f"{stack.name} in {stack.region}, machines in {len(stack.places.zones)} zones")
    looks: tuple[tuple[str, Callable[[Clients, Stack], str]], ...] = (
        ("template", _templates),
        ("subnets", _subnets),
        ("quota", _quota),
        ("bucket", _bucket),
        ("table", _table),
        ("budget", _budget),
        ("switch", _switch),
        ("launch", _dry_run),
    )
    for title, look in looks:
        yield _look(title, partial(look, clients, stack))
    yield from _hosts(clients, stack)


def _hosts(clients: Clients, stack: Stack) -> Iterator[Check]:
    """A line for each host of one's own; none where there is none."""
    found: list[tuple[Host, host_checks.Examiner]] = []

    def read() -> str:
        hosts, examiner = host_checks.registered(clients, stack)
        found.extend((host, examiner) for host in hosts if examiner is not None)
        return ""

    registry = _look("hosts", read)
    if registry.state != "ok":
        yield registry
    for host, examiner in found:
        seen = host_checks.look(host, examiner)
        yield Check(f"host {host.name}", seen.state, seen.text, seen.remedy)


def _no_stack(error: SpotrelayError) -> Check:
    """What it means that the stack was not found: silence says nothing about it."""
    if error.__cause__ is not None and _silent(error.__cause__):
        return _unanswered("stack", error.__cause__)
    if isinstance(error, Unavailable):
        return Check("stack", "failed", str(error), "log in as somebody who may describe stacks")
    return Check("stack", "failed", str(error), "npx cdk deploy, or name it with --stack and --region")


def _silent(error: BaseException) -> bool:
    """Whether AWS gave no answer, or none that tells anything."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    from spotrelay.aws.failures import Kind, kind_of

    if isinstance(error, ClientError):
        return kind_of(error) in (Kind.CUT, Kind.THROTTLE)
    return isinstance(error, (ConnectionError, HTTPClientError))


def _unanswered(name: str, error: BaseException) -> Check:
    return Check(name, "unknown", f"AWS did not answer: {error}", "nothing is known to be wrong; look again later")


def _look(name: str, look: Callable[[], str]) -> Check:
    from spotrelay.aws.failures import FAILURES, Kind, code_of, kind_of

    try:
        return Check(name, "ok", look())
    except Sick as found:
        return Check(name, "failed", str(found), found.remedy)
    except Unseen as found:
        return Check(name, "unknown", str(found))
    except Missing as error:
        return Check(name, "failed", str(error), "deploy the stack again")
    except SpotrelayError as error:
        return Check(name, "unknown", str(error))
    except FAILURES as error:
        if _silent(error):
            return _unanswered(name, error)
        if kind_of(error) is Kind.ACCESS and name != "credentials":
            return Check(name, "unknown", f"you may not look at it ({code_of(error)})")
        return Check(name, "failed", str(error), "log in again, then look here again" if name == "credentials" else "")


def _credentials(clients: Clients) -> str:
    who = clients.client("sts").get_caller_identity()
    return f"{who['Arn']} in account {who['Account']}"


def _templates(clients: Clients, stack: Stack) -> str:
    for region, place in stack.places.regions.items():
        answer = clients.client("ec2", region).describe_launch_template_versions(
            LaunchTemplateId=place.launch_template, Versions=[place.version]
        )
        if not answer["LaunchTemplateVersions"]:
            what = f"{place.launch_template} in {region} has no version {place.version}"
            raise Sick(what, "deploy the stack again")
    return ", ".join(f"{p.launch_template} version {p.version} in {r}" for r, p in stack.places.regions.items())


def _subnets(clients: Clients, stack: Stack) -> str:
    for region, place in stack.places.regions.items():
        wanted = sorted(place.subnets.values())
        if not wanted:
            raise Sick(f"no subnet in {region}", "give the stack a network with a subnet in each zone")
        found = clients.client("ec2", region).describe_subnets(SubnetIds=wanted)["Subnets"]
        full = [s["SubnetId"] for s in found if s.get("AvailableIpAddressCount", 1) < 1]
        if full:
            raise Sick(f"{', '.join(full)} in {region} has no free address", "end what is left over there")
    return ", ".join(zone for _, zone in stack.places.zones)


def _quota(clients: Clients, stack: Stack) -> str:
    from spotrelay.aws.failures import FAILURES, code_of

    told = []
    for quota in SPOT_QUOTAS:
        try:
            answer = clients.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)
        except FAILURES as error:
            if code_of(error) == NO_SUCH_QUOTA:
                continue
            raise Unseen(f"the Spot quotas cannot be read ({code_of(error)})") from error
        told.append((quota.name, float(answer["Quota"]["Value"])))
    if not told:
        raise Unseen(f"{stack.region} knows none of the Spot quotas")
    if not any(value for _, value in told):
        raise Sick(f"every Spot quota in {stack.region} is 0 vCPUs", "ask for more under Service Quotas, Amazon EC2")
    return "; ".join(f"{family}: {value:g} vCPUs" for family, value in told)


def _bucket(clients: Clients, stack: Stack) -> str:
    s3 = clients.client("s3")
    s3.head_bucket(Bucket=stack.bucket)
    if s3.get_bucket_versioning(Bucket=stack.bucket).get("Status") != "Enabled":
        what = f"{stack.bucket} is not versioned: a checkpoint could be overwritten"
        raise Sick(what, "somebody changed it; deploy the stack again")
    return f"{stack.bucket}, versioned"


def _table(clients: Clients, stack: Stack) -> str:
    described = clients.client("dynamodb").describe_table(TableName=stack.table)["Table"]
    if described["TableStatus"] not in ("ACTIVE", "UPDATING"):
        raise Sick(f"{stack.table} is {described['TableStatus']}", "wait for it, or restore it")
    return f"{stack.table}, {described['TableStatus'].lower()}"


def _budget(clients: Clients, stack: Stack) -> str:
    from spotrelay.aws.clock import SystemClock
    from spotrelay.console.budget import books_of, ceiling_of
    from spotrelay.core.budget import MICRO

    ceiling = ceiling_of(stack)
    if ceiling is None:
        return "no ceiling for the account: only the limits of each run's spec"
    spent = sum(cell.total for cell in books_of(clients, stack).cells(SystemClock().now().date())) / MICRO
    if spent >= ceiling:
        what = f"${spent:,.2f} of ${ceiling:,.2f} a day are used up: nothing is launched until midnight UTC"
        raise Sick(what, "raise budget_dollars_per_day in cdk.json and deploy, or wait")
    return f"${spent:,.2f} of today spent or set aside" + ("" if ceiling == float("inf") else f", of ${ceiling:,.2f}")


def _switch(clients: Clients, stack: Stack) -> str:
    from spotrelay.aws.switch import SsmSwitch

    if not SsmSwitch(clients.client("ssm"), stack.switch).launches_allowed():
        how = f"aws ssm put-parameter --overwrite --name {stack.switch} --value on"
        raise Sick("launches are switched off", how)
    return "launches are allowed"


def _dry_run(clients: Clients, stack: Stack) -> str:
    from botocore.exceptions import ClientError

    from spotrelay.aws.failures import code_of

    region, zone = stack.places.zones[0]
    request = _fleet_request(stack, Pool(region, zone, DRY_RUN_TYPE))
    try:
        clients.launcher(region).create_fleet(**request, DryRun=True)
    except ClientError as error:
        code = code_of(error)
        if code == DRY_RUN:
            return f"a launch in {zone} would be let through"
        if code in NOT_LET_IN:
            raise Unseen(f"you may not launch yourself ({code}); the stack's own role still may") from error
        raise Sick(
            f"a launch in {zone} would be refused: {error}", "mend what it names, then look here again"
        ) from error
    raise Sick("EC2 ignored the dry run", f"look for a machine tagged spotrelay:run=doctor in {region} and end it")


def _fleet_request(stack: Stack, pool: Pool) -> dict[str, Any]:
    from spotrelay.aws import fleet

    request = fleet.prepare(stack.places, stack.name, "doctor", 1, 1, Rung((pool,), "dry run"))
    return dict(request["CreateFleet"])
