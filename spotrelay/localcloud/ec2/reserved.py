"""Capacity reservations and capacity blocks, as far as a launch needs: what each is for, and how much is left.

Source:
    EC2 User Guide, "Launch instances into an existing Capacity Reservation" and "Launch instances using Capacity
    Blocks"; EC2 API Reference, "Error codes".
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.records import Blueprint

BLOCK = "capacity-block"


@dataclass(frozen=True)
class Reserved:
    """One reservation."""

    reservation_id: str
    instance_type: str
    zone: str
    count: int  # machines
    block: bool = False


class Reservations:
    """The reservations of the account; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Reserved] = {}

    def put(self, reserved: Reserved) -> None:
        """Let there be this reservation."""
        with self._lock:
            self._known[reserved.reservation_id] = reserved

    def claim(self, plan: Blueprint, running: Iterable[str]) -> Ec2Error | None:
        """Ask for one machine in the plan's reservation; the refusal, or None when there is room.

        Args:
            running: the reservation of each machine that runs or is about to.
        """
        with self._lock:
            found = self._known.get(plan.reservation)
        if found is None:
            text = f"The specified Capacity Reservation does not exist: {plan.reservation}"
            return Ec2Error("InvalidCapacityReservationId.NotFound", text)
        if (found.instance_type, found.zone) != (plan.pool.instance_type, plan.pool.zone):
            text = f"{plan.reservation} is for {found.instance_type} in {found.zone}"
            return Ec2Error("InvalidParameterValue", text)
        if found.block != (plan.pool.market == BLOCK):
            return Ec2Error("InvalidParameterCombination", f"{plan.reservation}: the market type does not match")
        if sum(each == plan.reservation for each in running) >= found.count:
            text = f"Requested capacity exceeds what is available in {plan.reservation}"
            return Ec2Error("ReservationCapacityExceeded", text)
        return None
