"""Capacity reservations and capacity blocks that end, with the machines in them.

A machine in one is warned by these events instead of the Spot ones, and is answered in the same way.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from handlers.events import Detail, Envelope, deadline
from handlers.interruption_warning import Warned
from handlers.signals import Arrival, Signal
from spotrelay.core.errors import InvalidInput
from spotrelay.core.notice import InterruptionNotice, NoticeSource

INTERRUPTION = "EC2 Capacity Reservation Instance Interruption Warning"
# Today's name and the one on older pages.
EXPIRATION = ("Capacity Block Expiration Warning", "Capacity Block Reservation Expiration Warning")
RESERVATION_ID = re.compile(r"cr-[0-9a-z]{8,32}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _reservation_id(value: Any) -> str:
    found = _text(value).strip()
    if not RESERVATION_ID.fullmatch(found):
        raise InvalidInput(f"{value!r} is no capacity reservation id")
    return found


class ReservationWarned(Warned):
    """The detail of an interruption warning: as the Spot one, with the moment of the end."""

    ends: Annotated[str, BeforeValidator(_text)] = Field(
        "", validation_alias=AliasChoices("instance-termination-time", "instance_termination_time")
    )


class Expiring(Detail):
    """The detail of a capacity block's end. It names the reservation, not the machines in it."""

    reservation_id: Annotated[str, BeforeValidator(_reservation_id)] = Field(
        validation_alias=AliasChoices("capacity-reservation-id", "capacity_reservation_id")
    )


def translate_interruption(envelope: Envelope, arrival: Arrival) -> Signal:
    """The warning as a notice for its machine."""
    detail = ReservationWarned.model_validate(envelope.detail)
    ends = deadline(arrival, said=detail.ends, sent=envelope.time)
    notice = InterruptionNotice(detail.instance_id, detail.action, ends, NoticeSource.CAPACITY_RESERVATION)
    return Signal(INTERRUPTION, (notice,), instance_id=detail.instance_id)


def translate_expiration(envelope: Envelope, arrival: Arrival) -> Signal:
    """Whose block it is cannot be told from the event: it is counted, the machines' own events follow."""
    Expiring.model_validate(envelope.detail)
    return Signal(EXPIRATION[0])
