"""A terminated instance loses its tags; the ledger does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.acceptance_aws.machines import Ledger

START = datetime(2026, 1, 1, tzinfo=UTC)
TAGS = [{"Key": "spotrelay:run", "Value": "run"}, {"Key": "spotrelay:generation", "Value": "2"}]


class Ec2:
    """DescribeInstances over a list, with filters by tag and by id."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}

    def get_paginator(self, _: str) -> Ec2:
        return self

    def paginate(self, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (wanted,) = Filters
        if wanted["Name"] == "instance-id":
            found = [i for i in self.instances.values() if i["InstanceId"] in wanted["Values"]]
        else:
            found = [i for i in self.instances.values() if i["Tags"]]
        return [{"Reservations": [{"Instances": found}]}]


def instance(state: str = "running", reason: str = "", tags: list[dict[str, str]] = TAGS) -> dict[str, Any]:
    return {
        "InstanceId": "i-1",
        "State": {"Name": state},
        "InstanceType": "t3a.medium",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "LaunchTime": START,
        "StateReason": {"Code": reason} if reason else None,
        "Tags": tags,
    }


def test_a_machine_is_known_by_its_tags() -> None:
    ec2 = Ec2()
    ec2.instances["i-1"] = instance()

    (machine,) = Ledger(ec2, "stack", lambda: START).look()

    assert (machine.run_id, machine.generation, machine.is_over) == ("run", 2, False)


def test_a_machine_that_lost_its_tags_is_still_followed_to_its_end() -> None:
    ec2, now = Ec2(), [START]
    ledger = Ledger(ec2, "stack", lambda: now[0])
    ec2.instances["i-1"] = instance()
    ledger.look()

    ec2.instances["i-1"] = instance("shutting-down", "Server.SpotInstanceTermination", tags=[])
    now[0] = START + timedelta(minutes=5)
    ledger.look()
    ec2.instances["i-1"] = instance("terminated", "Server.SpotInstanceTermination", tags=[])
    now[0] = START + timedelta(minutes=9)
    (machine,) = ledger.look()

    assert (machine.run_id, machine.generation) == ("run", 2)
    assert machine.reason == "Server.SpotInstanceTermination"
    assert machine.over_at == START + timedelta(minutes=5)


def test_a_machine_that_ec2_shows_no_more_is_not_forgotten() -> None:
    ec2 = Ec2()
    ledger = Ledger(ec2, "stack", lambda: START)
    ec2.instances["i-1"] = instance()
    ledger.look()
    ec2.instances.clear()

    assert [machine.instance_id for machine in ledger.look()] == ["i-1"]
