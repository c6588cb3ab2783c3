"""EC2's Spot placement scores. A hint: asked for rarely, never on the way to a launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spotrelay.aws.clients import Clients
from spotrelay.aws.failures import FAILURES, failed_read
from spotrelay.aws.places import Places
from spotrelay.core.outlook import Question, ZoneScore


class Ec2Scores:
    """A `PlacementScores` over the regions that the stack reaches.

    Source:
        EC2 API Reference, GetSpotPlacementScores; EC2 User Guide, "Spot placement score".
    """

    def __init__(self, clients: Clients, places: Places) -> None:
        self._clients = clients
        self._places = places
        self._zones: dict[str, str] = {}  # by id: an account's names for zones are its own, and never change

    def ask(self, question: Question) -> tuple[ZoneScore, ...]:
        """The score of each zone of the stack's that EC2 names; always the same request for the same question."""
        names = self._zone_names()
        rows = self._rows(question)
        known = ((row["Region"], names.get(row.get("AvailabilityZoneId", "")), int(row["Score"])) for row in rows)
        ours = set(self._places.zones)
        return tuple(ZoneScore(region, zone, score) for region, zone, score in known if zone and (region, zone) in ours)

    def _rows(self, question: Question) -> list[dict[str, Any]]:
        doing = f"asking for placement scores of {', '.join(question.instance_types)}"
        request: Mapping[str, Any] = {
            "InstanceTypes": list(question.instance_types),
            "TargetCapacity": question.nodes,
            "SingleAvailabilityZone": True,
            "RegionNames": sorted(self._places.regions),
        }
        try:
            pages = self._clients.client("ec2").get_paginator("get_spot_placement_scores").paginate(**request)
            return [row for page in pages for row in page["SpotPlacementScores"]]
        except FAILURES as error:
            raise failed_read(error, doing) from error

    def _zone_names(self) -> Mapping[str, str]:
        """Names by id; scores speak of zones by their ids."""
        if not self._zones:
            found: dict[str, str] = {}
            for region in self._places.regions:
                try:
                    answer = self._clients.client("ec2", region).describe_availability_zones()
                except FAILURES as error:
                    raise failed_read(error, f"asking for the ids of the zones of {region}") from error
                found |= {zone["ZoneId"]: zone["ZoneName"] for zone in answer["AvailabilityZones"]}
            self._zones = found
        return self._zones
