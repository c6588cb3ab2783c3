"""What EC2 has to give: pools that are empty on demand, quotas, and a limit on the rate of requests."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spotrelay.localcloud.ec2 import catalogue
from spotrelay.localcloud.ec2.errors import CODES, Ec2Error
from spotrelay.localcloud.ec2.records import SPOT, Pool

FLEET = "fleet"
EXCEPTION = "exception"
_COORDINATES = frozenset(Pool("", "", "", "").facts())
_REASONS = {
    "InsufficientInstanceCapacity": "We currently do not have sufficient {instance_type} capacity in the Availability "
    "Zone you requested ({zone}). Our system will be working on provisioning additional capacity.",
    "UnfulfillableCapacity": "Unable to fulfill capacity due to your request configuration. Please adjust your request "
    "and try again.",
    "InsufficientFreeAddressesInSubnet": "There are not enough free addresses in the subnet in {zone}.",
    "Unsupported": "Your requested instance type ({instance_type}) is not supported in your requested Availability "
    "Zone ({zone}).",
}


class BadRule(Exception):
    """A rule was asked for in words that the emulated EC2 does not know."""


@dataclass
class _Refusal:
    match: dict[str, list[str]]
    code: str
    form: str
    times: int | None
    """how often it still refuses; None is for ever"""
    after: int
    """machines that are given before that"""

    def fits(self, pool: Pool) -> bool:
        facts = pool.facts()
        return self.times != 0 and all(facts[name] in wanted for name, wanted in self.match.items())


class Capacity:
    """Which pools refuse a launch, and how; thread-safe."""

    def __init__(self) -> None:
        self._refusals: list[_Refusal] = []
        self._quotas: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def refuse(self, match: Mapping[str, Any], code: str, form: str, times: int | None, after: int = 0) -> None:
        """Have matching pools refuse launches.

        Args:
            match: any of region, zone, instance_type, market, each a word or a list of words; empty matches all.
            code: the error code.
            form: `fleet` (CreateFleet answers 200 with Errors) or `exception` (the request as a whole fails).
            times: how many launches to refuse; None for ever.
            after: machines that are given before that.
        """
        if form not in (FLEET, EXCEPTION):
            raise BadRule(f"a refusal comes as {FLEET} or as {EXCEPTION}, not as {form}")
        with self._lock:
            self._refusals.append(_Refusal(_checked(match), code, form, times, after))

    def allow(self, match: Mapping[str, Any]) -> None:
        """Take back the refusals that name all of what `match` names; every refusal for an empty one."""
        wanted = _checked(match).items()
        with self._lock:
            self._refusals = [rule for rule in self._refusals if not wanted <= rule.match.items()]

    def set_quota(self, market: str, family: str, vcpus: int | None, region: str = "*") -> None:
        """Limit the vCPUs that run at once; None takes the limit back.

        Args:
            market: spot or on-demand.
            family: `G`, `P` or `Standard`, as Service Quotas groups them.
        """
        with self._lock:
            if vcpus is None:
                self._quotas.pop((region, market, family), None)
            else:
                self._quotas[region, market, family] = vcpus

    def claim(self, pool: Pool, running: Iterable[Pool]) -> tuple[Ec2Error, str] | None:
        """Ask for one instance; the refusal and its form, or None when there is capacity."""
        over = self._over_quota(pool, running)
        if over is not None:
            return over, FLEET
        with self._lock:
            for rule in self._refusals:
                if rule.fits(pool) and rule.after > 0:
                    rule.after -= 1
                elif rule.fits(pool):
                    rule.times = None if rule.times is None else rule.times - 1
                    return Ec2Error(rule.code, _reason(rule.code, pool)), rule.form
        return None

    def score(self, pool: Pool) -> int:
        """From 1 (nothing left) to 9, as a placement score counts."""
        with self._lock:
            empty = any(rule.fits(pool) and not rule.after for rule in self._refusals)
        return 1 if empty else catalogue.depth(pool.instance_type, pool.zone)

    def _over_quota(self, pool: Pool, running: Iterable[Pool]) -> Ec2Error | None:
        kind = catalogue.instance_types()[pool.instance_type]
        with self._lock:
            limits = [self._quotas.get((region, pool.market, kind.quota_family)) for region in (pool.region, "*")]
        limit = next((limit for limit in limits if limit is not None), None)
        if limit is None:
            return None
        used = sum(_counts(other, pool, kind.quota_family) for other in running)
        if used + kind.vcpus <= limit:
            return None
        if pool.market == SPOT:
            return Ec2Error("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        return Ec2Error(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance "
            "bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/"
            "ec2-request to request an adjustment to this limit.",
        )


def _counts(other: Pool, pool: Pool, family: str) -> int:
    kind = catalogue.instance_types()[other.instance_type]
    same = other.region == pool.region and other.market == pool.market and kind.quota_family == family
    return kind.vcpus if same else 0


def _checked(match: Mapping[str, Any]) -> dict[str, list[str]]:
    unknown = set(match) - _COORDINATES
    if unknown:
        raise BadRule(f"a pool has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(_COORDINATES))}")
    return {name: [value] if isinstance(value, str) else sorted(value) for name, value in match.items()}


def _reason(code: str, pool: Pool) -> str:
    text = _REASONS.get(code, "The request cannot be fulfilled ({instance_type} in {zone}).")
    return text.format(**pool.facts()) if code in CODES or code in _REASONS else f"{code} ({pool.zone})"


class RequestRate:
    """A token bucket for each region and action; off until a limit is set. Thread-safe.

    Source:
        EC2 API Reference, "Request throttling for the Amazon EC2 API".
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = math.inf
        self._burst = math.inf
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = threading.Lock()
        self.refused = 0

    def limit(self, per_second: float | None, burst: float | None = None) -> None:
        """Let each action be called `per_second` times, after a `burst`; None lifts the limit."""
        with self._lock:
            self._rate = math.inf if per_second is None else per_second
            self._burst = self._rate if burst is None else burst
            self._buckets.clear()

    def spend(self, region: str, action: str) -> None:
        """Count one request.

        Raises:
            Ec2Error: RequestLimitExceeded; the request was not looked at.
        """
        with self._lock:
            if math.isinf(self._rate):
                return
            now = self._clock()
            left, since = self._buckets.get((region, action), (self._burst, now))
            left = min(self._burst, left + (now - since) * self._rate)
            enough = left >= 1.0
            self._buckets[region, action] = (left - 1.0 if enough else left, now)
            if not enough:
                self.refused += 1
        if not enough:
            raise Ec2Error("RequestLimitExceeded", "Request limit exceeded.")
