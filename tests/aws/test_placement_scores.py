"""EC2's placement scores over HTTP, from the embedded cloud's EC2, with the rights of a caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import get_session

from spotrelay.aws.clients import Clients
from spotrelay.aws.placement_scores import Ec2Scores
from spotrelay.aws.places import Place, Places
from spotrelay.core.errors import InvalidInput, Unavailable
from spotrelay.core.outlook import Question
from spotrelay.localcloud.client import LocalCloud
from tests.localcloud.kit import allow, as_role, role

pytestmark = pytest.mark.loop

ZONES = {"us-east-1": ("us-east-1a", "us-east-1b"), "eu-west-1": ("eu-west-1c",)}
PLACES = Places({name: Place("lt-0", "1", dict.fromkeys(zones, "subnet-0")) for name, zones in ZONES.items()})
TYPES = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")
QUESTION = Question(TYPES)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), time_scale=0.02) as cloud:
        yield cloud


@pytest.fixture
def clients(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Clients:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    return Clients("us-east-1", get_session())


@pytest.fixture
def sent(clients: Clients) -> list[tuple[str, str, dict[str, Any]]]:
    """Region, call and parameters of every request, as they leave."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for region in ZONES:
        client = clients.client("ec2", region)

        def note(params: dict[str, Any], model: Any, region: str = region, **rest: Any) -> None:
            found.append((region, model.name, params))

        client.meta.events.register("provide-client-params.ec2", note)
    return found


def test_each_zone_of_the_stack_is_told_by_its_name_with_its_score(clients: Clients) -> None:
    scores = Ec2Scores(clients, PLACES).ask(QUESTION)

    assert {(each.region, each.zone) for each in scores} == set(PLACES.zones)
    assert all(3 < each.score <= 10 for each in scores)


def test_a_zone_that_has_nothing_left_scores_lowest(cloud: LocalCloud, clients: Clients) -> None:
    for name in TYPES:
        cloud.refuse({"zone": "us-east-1b", "instance_type": name}, "InsufficientInstanceCapacity")
    try:
        scores = {each.zone: each.score for each in Ec2Scores(clients, PLACES).ask(QUESTION)}
    finally:
        cloud.allow({})

    assert scores["us-east-1b"] < scores["us-east-1a"]


def test_the_same_question_is_the_same_request_and_names_of_zones_are_asked_for_once(
    clients: Clients, sent: list[tuple[str, str, dict[str, Any]]]
) -> None:
    scores = Ec2Scores(clients, PLACES)

    scores.ask(QUESTION)
    scores.ask(QUESTION)

    questions = [params for _, call, params in sent if call == "GetSpotPlacementScores"]
    assert len(questions) == 2 and questions[0] == questions[1]
    assert questions[0]["SingleAvailabilityZone"] is True
    assert questions[0]["RegionNames"] == ["eu-west-1", "us-east-1"]
    assert [region for region, call, _ in sent if call == "DescribeAvailabilityZones"] == list(ZONES)


def test_a_role_without_the_right_is_told_and_one_with_it_is_answered(cloud: LocalCloud, clients: Clients) -> None:
    def asked(name: str, *actions: str) -> int:
        keys = as_role(cloud, role(cloud, name, "lambda.amazonaws.com", allow(*actions, on="*")))
        session = get_session()
        session.set_credentials(*keys.values())
        return len(Ec2Scores(Clients("us-east-1", session), PLACES).ask(QUESTION))

    with pytest.raises(Unavailable, match="UnauthorizedOperation"):
        asked("blind", "ec2:DescribeAvailabilityZones")
    assert asked("seeing", "ec2:DescribeAvailabilityZones", "ec2:GetSpotPlacementScores") == 3


def test_a_request_that_ec2_does_not_take_says_so(clients: Clients) -> None:
    with pytest.raises(InvalidInput, match="placement scores"):
        Ec2Scores(clients, PLACES).ask(Question(("no.such",) * 3))
