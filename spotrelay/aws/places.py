"""Where machines may start: each region's launch template and its subnet in each zone."""

from __future__ import annotations

import json
from dataclasses import dataclass

from spotrelay.core.codec import from_json
from spotrelay.core.errors import InvalidInput


@dataclass(frozen=True)
class Place:
    """What one region offers."""

    launch_template: str  # lt-…
    version: str  # of the template, a number: a name such as $Latest could change under an intent
    subnets: dict[str, str]  # zone to subnet


@dataclass(frozen=True)
class Places:
    """Every region in which the stack can start machines, the home region first."""

    regions: dict[str, Place]

    @property
    def zones(self) -> tuple[tuple[str, str], ...]:
        """(region, zone) of each subnet."""
        return tuple((region, zone) for region, place in self.regions.items() for zone in place.subnets)

    def place(self, region: str) -> Place:
        """What this region offers.

        Raises:
            InvalidInput: the stack does not reach it.
        """
        if region not in self.regions:
            raise InvalidInput(f"the stack does not reach region {region}: it has {', '.join(self.regions) or 'none'}")
        return self.regions[region]

    def subnet(self, region: str, zone: str) -> str:
        """The subnet in this zone.

        Raises:
            InvalidInput: the stack has none there.
        """
        subnets = self.place(region).subnets
        if zone not in subnets:
            raise InvalidInput(f"the stack has no subnet in zone {zone}: it has {', '.join(subnets) or 'none'}")
        return subnets[zone]


def parse_places(text: str) -> Places:
    """The places in the JSON that the stack gives to its functions.

    Raises:
        InvalidInput: the text is not what the stack writes; deploy again.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the places of the stack cannot be read: {error}. Deploy it again") from error
    return from_json(Places, {"regions": data}, "places")
