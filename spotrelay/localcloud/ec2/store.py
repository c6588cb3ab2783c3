"""Everything that the emulated EC2 knows, behind one lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.records import Fleet, Instance, Pool, SpotRequest

_VISIBLE_S = 3600.0
_LONGEST_TOKEN = 64


class Store:
    """Records by id, in the order in which they were made. Hold `lock` while reading several or changing any."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.instances: dict[str, Instance] = {}
        self.fleets: dict[str, Fleet] = {}
        self.spot_requests: dict[str, SpotRequest] = {}
        self.lag_s = 0.0
        """how long a new instance stays unknown to Describe and Terminate calls"""
        self._answers: dict[tuple[str, ...], tuple[Any, Any]] = {}

    def visible(self, region: str, now: float) -> list[Instance]:
        """The instances that calls in a region know of: not those launched just now, nor those long terminated."""
        return [
            instance
            for instance in self.instances.values()
            if instance.pool.region == region
            and now - instance.launched_at >= self.lag_s
            and (instance.terminated_at is None or now - instance.terminated_at < _VISIBLE_S)
        ]

    def running_pools(self) -> Iterator[Pool]:
        """The pools of all instances that count against a quota."""
        return (instance.pool for instance in self.instances.values() if instance.state in ("pending", "running"))

    def answered(self, action: str, region: str, zone: str, request: dict[str, Any]) -> Any:
        """What was answered to the same request under the same ClientToken; None for a new one.

        Args:
            zone: empty for a request whose idempotency is the region's.

        Raises:
            Ec2Error: the token was used with other parameters, or is no token.

        Source:
            EC2 Developer Guide, "Ensuring idempotency in Amazon EC2 API requests".
        """
        token = request.get("ClientToken")
        if not token:
            return None
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise Ec2Error("InvalidClientToken", f"The client token {token!r} has more than 64 ASCII characters")
        known = self._answers.get((action, region, zone, token))
        if known is None:
            return None
        if known[0] != _without_token(request):
            raise Ec2Error(
                "IdempotentParameterMismatch",
                f"Arguments on this idempotent request are inconsistent with arguments used in previous request(s): "
                f"client token {token}",
            )
        return known[1]

    def remember(self, action: str, region: str, zone: str, request: dict[str, Any], answer: Any) -> None:
        """Keep an answer for the next request with this ClientToken."""
        token = request.get("ClientToken")
        if token:
            self._answers[action, region, zone, token] = (_without_token(request), answer)


def _without_token(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("ClientToken", "DryRun")}
