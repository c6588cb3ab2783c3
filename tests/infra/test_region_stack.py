"""What a further region's template says, and what home learns of it."""

from __future__ import annotations

import json

from handlers import settings
from spotrelay.aws.places import parse_places
from tests.infra.conftest import Synthesise
from tests.infra.reading import ACCOUNT, Template


def test_a_further_region_forwards_the_same_events_that_home_listens_to(abroad: dict[str, Template]) -> None:
    def patterns(template: Template) -> set[str]:
        rules = template.of("AWS::Events::Rule").values()
        found = [rule["EventPattern"] for rule in rules if rule["EventPattern"]["source"] == ["aws.ec2"]]
        return {json.dumps(pattern, sort_keys=True) for pattern in found}

    assert patterns(abroad["Spotrelay-us-west-2"]) == patterns(abroad["Spotrelay"])


def test_events_go_to_the_home_bus_under_a_role_that_can_do_nothing_else(abroad: dict[str, Template]) -> None:
    template = abroad["Spotrelay-us-west-2"]
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/Spotrelay"

    targets = [target for rule in template.of("AWS::Events::Rule").values() for target in rule["Targets"]]

    assert {target["Arn"] for target in targets} == {bus}
    assert all("DeadLetterConfig" in target for target in targets)
    (policy,) = template.policies("Forwarder")
    assert [(s["Action"], s["Resource"]) for s in policy["Statement"]] == [("events:PutEvents", bus)]


def test_a_further_region_uploads_nothing(abroad: dict[str, Template]) -> None:
    for name in ("Spotrelay-us-west-2", "Spotrelay-eu-west-1"):
        assert not abroad[name].of("AWS::Lambda::Function")
        assert not [r for r in abroad[name].resources if "Asset" in r]


def test_machines_abroad_are_told_of_home(abroad: dict[str, Template]) -> None:
    script = abroad["Spotrelay-eu-west-1"].one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]

    for line in (
        "table=the-table",
        "bucket=the-bucket",
        "home_region=us-east-1",
        f"agent_bucket='cdk-hnb659fds-assets-{ACCOUNT}-us-east-1'",
    ):
        assert f"\n{line}\n" in script


def test_machines_abroad_fetch_the_very_agent_of_home(abroad: dict[str, Template]) -> None:
    def agent(stack: str) -> list[str]:
        script = abroad[stack].one("AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]
        return [line for line in script.splitlines() if line.startswith(("agent_key=", "agent_sha256="))]

    assert agent("Spotrelay-eu-west-1") == agent("Spotrelay")


def test_home_knows_the_places_that_the_context_names(abroad: dict[str, Template]) -> None:
    variables = abroad["Spotrelay"].one("AWS::Lambda::Function", "RunsWorker")["Environment"]["Variables"]

    places = parse_places(variables[settings.PLACES])

    assert list(places.regions) == ["us-east-1", "eu-west-1"]
    assert places.place("eu-west-1").launch_template == "lt-0f"
    assert ("eu-west-1", "eu-west-1a") in places.zones


def test_without_homes_names_a_region_only_forwards(synthesise: Synthesise) -> None:
    template = synthesise(home_region="us-east-1", regions={"us-west-2": {}})["Spotrelay-us-west-2"]

    assert not template.of("AWS::EC2::LaunchTemplate")
    assert template.of("AWS::Events::Rule")
