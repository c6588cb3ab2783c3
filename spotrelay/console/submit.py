"""`spotrelay submit`: check the spec, upload the code, write the run, tell the control plane."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from spotrelay.console.bundle import Bundle, pack
from spotrelay.console.exits import AlreadyEnded
from spotrelay.console.output import aside
from spotrelay.console.specfile import read_spec
from spotrelay.console.wiring import Services
from spotrelay.core.errors import AlreadyExists, InvalidInput, OutcomeUnknown, SpotrelayError
from spotrelay.core.hosts import open_pools
from spotrelay.core.placement import Pool
from spotrelay.core.requirements import matching
from spotrelay.core.run import Run, note
from spotrelay.core.spec import LONGEST_KEPT_MINUTES, Spec, asks_own, checked_run_id, pools_of

SUBMITTED = "Run Submitted"
NAME_LENGTH = 30


@dataclass(frozen=True)
class Submission:
    """What will be sent: checked, and nothing sent yet."""

    run_id: str
    spec: Spec
    bundle: Bundle | None


def prepare(
    path: Path, code: Path | None, run_id: str | None, failover: bool, keep_failed: float | None = None
) -> Submission:
    """Read and check everything that can be checked on this machine.

    Raises:
        InvalidInput: the spec, the code directory or the id is wrong; nothing was sent.
    """
    spec = read_spec(path)
    chosen = checked_run_id(run_id) if run_id else _new_id(path)
    bundle = None
    if code is not None:
        if spec.code_key or spec.image:
            pinned = "code_key" if spec.code_key else "image"
            raise InvalidInput(f"{path} pins {pinned} already: leave that out, or leave out --code")
        bundle = pack(code)
        spec = replace(spec, code_key=bundle.key, code_digest=bundle.digest)
    if not failover:
        spec = replace(spec, failover=False)
    if keep_failed is not None:
        spec = replace(spec, keep_failed_minutes=keep_failed)
        if not 0 <= keep_failed <= LONGEST_KEPT_MINUTES:
            raise InvalidInput(f"--keep-failed: 0 to {LONGEST_KEPT_MINUTES} minutes, not {keep_failed:g}")
    return Submission(chosen, spec, bundle)


def send(submission: Submission, services: Services) -> Run:
    """Upload the code, then create the run, then tell; a lost reply is read back.

    Raises:
        InvalidInput: no pool of the spec is within the stack's reach, or no type fits; nothing was sent.
        AlreadyExists: the id is taken.
    """
    spec = resolved(submission.spec, services)
    submission = replace(submission, spec=spec)
    own = open_pools(services.hosts.hosts()) if services.hosts is not None and asks_own(spec) else ()
    pools = pools_of(spec, services.zones, own)
    if not pools:
        known = ", ".join(zone for _, zone in services.zones) or "none"
        wanted = ", ".join(submission.spec.zones) or "every zone"
        raise InvalidInput(f"the spec wants {wanted}, and stack {services.stack} has subnets in: {known}")
    if submission.bundle is not None:
        _upload(submission.bundle, services)
    now = services.clock.now()
    run = Run(submission.run_id, submission.spec, created_at=now, due_at=now)
    run = note(run, "submitted", _said(submission.spec, len(pools)), now)
    _create(run, services)
    hint(services, SUBMITTED, run_id=run.run_id)
    return run


def resolved(spec: Spec, services: Services) -> Spec:
    """The spec with the instance types that its requirements mean today, by region; itself where it names them.

    Raises:
        InvalidInput: no type fits; names those that come nearest.
        Unavailable: EC2 does not answer in one of the regions.
    """
    wanted = spec.instance_requirements
    if not wanted.stated:
        return spec
    zones = [(region, zone) for region, zone in services.zones if not spec.zones or zone in spec.zones]
    offers = {region: services.kinds_in(region) for region in dict.fromkeys(region for region, _ in zones)}
    prices: dict[tuple[str, str], float] = {}
    if wanted.max_price is not None:
        anyhow = matching(replace(wanted, max_price=None), offers)
        pools = tuple(Pool(r, z, kind) for r, z in zones for kind in anyhow.get(r, ()))
        for pool, price in services.prices_of(pools).items():
            place = pool.region, pool.instance_type
            prices[place] = min(price, prices.get(place, price))
    offered = matching(wanted, offers, prices)
    types = tuple(dict.fromkeys(kind for kinds in offered.values() for kind in kinds))
    return replace(spec, instance_types=types, offered=offered)


def hint(services: Services, kind: str, **detail: str) -> None:
    """Tell the control plane at once; if that fails the sweep finds the fact within a minute."""
    try:
        services.publisher.publish(kind, detail)
    except SpotrelayError as error:
        aside(f"recorded, but the control plane could not be told ({error}); its sweep finds it within a minute")


def _upload(bundle: Bundle, services: Services) -> None:
    try:
        services.objects.put(bundle.key, bundle.data)
    except AlreadyExists:
        found = services.objects.head(bundle.key)
        if found.size != len(bundle.data):
            raise InvalidInput(
                f"{bundle.key} is in the bucket with {found.size} bytes, and {len(bundle.data)} are right: "
                "an outside hand has changed it; remove that object and submit again"
            ) from None


def _said(spec: Spec, pools: int) -> str:
    meant = f", of {', '.join(spec.instance_types)}" if spec.instance_requirements.stated else ""
    return f"submitted; {pools} pools are allowed{meant}"


def _create(run: Run, services: Services) -> None:
    try:
        services.runs.create(run)
    except OutcomeUnknown:
        if services.runs.load(run.run_id).created_at != run.created_at:
            raise


def _new_id(path: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:NAME_LENGTH].strip("-") or "run"
    return checked_run_id(f"{name}-{secrets.token_hex(3)}")


def refuse_if_over(run: Run) -> None:
    """Stop a command that would change a run which does not change any more.

    Raises:
        AlreadyEnded: it has.
    """
    if run.status.final:
        why = f" ({run.outcome_why})" if run.outcome_why else ""
        raise AlreadyEnded(f"run {run.run_id} has ended already: {run.status.value}{why}. Nothing was changed")
