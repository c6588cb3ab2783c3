"""EC2's answers, each in the shape that it has on the wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.session import get_session
from botocore.stub import ANY, Stubber
from moto import mock_aws

from spotrelay.aws.clients import Clients
from spotrelay.aws.machines import Ec2Machines
from spotrelay.aws.places import Place, Places
from spotrelay.core.errors import Contention, OutcomeUnknown, SpotrelayError, Unavailable
from spotrelay.core.notice import InstanceState
from spotrelay.core.placement import FailureScope, Pool, Rung
from spotrelay.core.ports import LaunchAnswer
from spotrelay.testing import ManualClock
from spotrelay.testing.contracts.samples import NOON
from tests.aws.wire import lose_requests, no_connection, no_endpoint

HOME, AWAY = "us-east-1", "eu-west-1"
PLACES = Places(
    {
        HOME: Place("lt-0home", "1", {"us-east-1a": "subnet-a", "us-east-1b": "subnet-b"}),
        AWAY: Place("lt-0away", "1", {"eu-west-1a": "subnet-e"}),
    }
)
A, B = Pool(HOME, "us-east-1a", "g5.xlarge"), Pool(HOME, "us-east-1b", "g5.xlarge")


@pytest.fixture
def machines(offline: Clients) -> Ec2Machines:
    return Ec2Machines(offline, PLACES, "Spotrelay", ManualClock())


def launch(machines: Ec2Machines) -> LaunchAnswer:
    return machines.launch(machines.prepare("r1", 1, 1, Rung((A, B), "test")), NOON)


@contextmanager
def saying(client: Any, operation: str, code: str, status: int) -> Iterator[None]:
    with Stubber(client) as stub:
        stub.add_client_error(operation, code, f"{code} said", status)
        yield


@pytest.mark.parametrize(
    ("code", "status", "scope"),
    [
        ("InsufficientInstanceCapacity", 500, FailureScope.POOL),
        ("InsufficientInstanceCapacity", 503, FailureScope.POOL),
        ("MaxSpotInstanceCountExceeded", 400, FailureScope.QUOTA),
        ("UnauthorizedOperation", 403, FailureScope.CONFIGURATION),
        ("InvalidLaunchTemplateId.NotFound", 400, FailureScope.CONFIGURATION),
        ("IdempotentParameterMismatch", 400, FailureScope.CONFIGURATION),
        ("InvalidFleetConfiguration", 400, FailureScope.CONFIGURATION),
        ("SomethingNew", 400, FailureScope.UNKNOWN),
    ],
)
def test_a_definite_no_is_a_refusal_of_every_pool_also_as_a_server_error(
    machines: Ec2Machines, offline: Clients, code: str, status: int, scope: FailureScope
) -> None:
    with saying(offline.launcher(HOME), "create_fleet", code, status):
        answer = launch(machines)

    assert (answer.instance_id, answer.pool) == (None, None)
    assert [(r.pool, r.scope, r.code, r.at) for r in answer.refusals] == [(p, scope, code, NOON) for p in (A, B)]
    assert f"{code} said" in answer.refusals[0].message


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("RequestLimitExceeded", 503, Contention),
        ("EC2ThrottledException", 400, Contention),
        ("InternalError", 500, OutcomeUnknown),
        ("Unavailable", 503, OutcomeUnknown),
        ("ServiceUnavailable", 503, OutcomeUnknown),
        ("SomethingNew", 500, OutcomeUnknown),
        ("", 502, OutcomeUnknown),
        ("ExpiredToken", 400, Unavailable),
        ("RequestExpired", 400, Unavailable),
    ],
)
def test_what_is_no_definite_answer_is_no_refusal(
    machines: Ec2Machines, offline: Clients, code: str, status: int, error: type[SpotrelayError]
) -> None:
    with saying(offline.launcher(HOME), "create_fleet", code, status), pytest.raises(error, match=r"r1\.1\.1"):
        launch(machines)


def test_a_launch_that_nobody_answered_is_unknown_and_was_sent_once(machines: Ec2Machines, offline: Clients) -> None:
    wire = lose_requests(offline.launcher(HOME), "CreateFleet")

    with pytest.raises(OutcomeUnknown):
        launch(machines)

    assert wire.asked == 1


def test_a_launch_without_a_connection_was_not_sent(machines: Ec2Machines, offline: Clients) -> None:
    no_connection(offline.launcher(HOME), "CreateFleet")

    with pytest.raises(Unavailable, match="nothing was sent"):
        launch(machines)


@pytest.mark.parametrize(
    "error",
    [
        ConnectTimeoutError(endpoint_url="https://ec2"),
        EndpointConnectionError(endpoint_url="https://ec2"),
        NoCredentialsError(),
        CredentialRetrievalError(provider="x", error_msg="y"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_region_out_of_reach_refuses_the_first_sending_and_no_other(
    machines: Ec2Machines, offline: Clients, error: Exception
) -> None:
    fail(offline.launcher(HOME), error)
    request = machines.prepare("r1", 1, 1, Rung((A, B), "test"))

    answer = machines.launch(request, NOON, first=True)

    assert [(r.pool, r.scope, r.code) for r in answer.refusals] == [
        (pool, FailureScope.REGION, type(error).__name__) for pool in (A, B)
    ]
    with pytest.raises(Unavailable, match=r"r1\.1\.1"):  # an earlier sending may have made a machine
        machines.launch(request, NOON)


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://ec2"),
        ConnectionClosedError(endpoint_url="https://ec2"),
        SSLError(endpoint_url="https://ec2", error=OSError("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_have_been_sent_is_unknown_also_the_first_time(
    machines: Ec2Machines, offline: Clients, error: Exception
) -> None:
    fail(offline.launcher(HOME), error)

    with pytest.raises(OutcomeUnknown):
        machines.launch(machines.prepare("r1", 1, 1, Rung((A,), "test")), NOON, first=True)


def fail(client: Any, error: Exception) -> None:
    def refuse(**_: Any) -> None:
        raise error

    client.meta.events.register("before-call", refuse)


def test_a_request_that_the_sdk_refuses_is_a_matter_of_configuration(machines: Ec2Machines) -> None:
    request = machines.prepare("r1", 1, 1, Rung((A,), "test"))
    request["CreateFleet"]["TargetCapacitySpecification"] = "one"

    answer = machines.launch(request, NOON)

    assert {refusal.scope for refusal in answer.refusals} == {FailureScope.CONFIGURATION}


class NoCapacity(BaseHTTPRequestHandler):
    """EC2's own words for it, as a server error."""

    def do_POST(self) -> None:
        self.server.asked = getattr(self.server, "asked", 0) + 1  # type: ignore[attr-defined]
        body = (
            b"<Response><Errors><Error><Code>InsufficientInstanceCapacity</Code><Message>none</Message></Error>"
            b"</Errors><RequestID>r</RequestID></Response>"
        )
        self.send_response(500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


def test_no_capacity_as_a_server_error_is_heard_at_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), NoCapacity) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        answer = launch(Ec2Machines(Clients(HOME, get_session()), PLACES, "Spotrelay"))
        server.shutdown()

    assert [refusal.scope for refusal in answer.refusals] == [FailureScope.POOL, FailureScope.POOL]
    assert server.asked == 1  # type: ignore[attr-defined]


def described(*instances: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"Reservations": [{"Instances": [i]} for i in instances]} | ({"NextToken": more} if more else {})


def instance(number: int, state: str = "running", launched: str = "1") -> dict[str, Any]:
    return {
        "InstanceId": f"i-{number:017x}",
        "State": {"Name": state},
        "InstanceType": "g5.xlarge",
        "InstanceLifecycle": "spot",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "LaunchTime": datetime(2026, 1, 1, tzinfo=UTC),
        "Tags": [
            {"Key": "spotrelay:run", "Value": "r1"},
            {"Key": "spotrelay:generation", "Value": "2"},
            {"Key": "spotrelay:launch", "Value": launched},
        ],
    }


def test_every_page_of_every_region_is_read(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_response(
            "describe_instances", described(instance(1), more="next"), {"Filters": ANY, "MaxResults": 1000}
        )
        home.add_response(
            "describe_instances", described(instance(2)), {"Filters": ANY, "MaxResults": 1000, "NextToken": "next"}
        )
        away.add_response("describe_instances", described(instance(3)), {"Filters": ANY, "MaxResults": 1000})

        found = list(machines.managed())

    assert [(m.instance_id[-1], m.pool.region) for m in found] == [("1", HOME), ("2", HOME), ("3", AWAY)]
    assert (found[0].run_id, found[0].generation, found[0].launch) == ("r1", 2, 1)
    assert found[0].launched_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_crowd_costs_one_request_while_it_is_another_regions_turn(machines: Ec2Machines, offline: Clients) -> None:
    asked = {"Filters": ANY, "MaxResults": 200}
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_response("describe_instances", described(instance(1), more="next"), asked)
        away.add_response("describe_instances", described(instance(3)), asked)

        found = list(machines.managed(whole=()))

        home.assert_no_pending_responses()
    assert [m.instance_id[-1] for m in found] == ["3"]


def test_of_two_machines_of_one_launch_the_living_one_is_found(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_response("describe_instances", described(instance(1, "terminated"), instance(2, "pending")))
        away.add_response("describe_instances", described())

        found = machines.find("r1", 1)

    assert found is not None
    assert (found.instance_id[-1], found.state) == ("2", InstanceState.PENDING)


def test_a_region_that_does_not_answer_makes_nobody_gone(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_response("describe_instances", described())
        away.add_client_error("describe_instances", "InternalError", http_status_code=500)

        with pytest.raises(Unavailable, match=AWAY):
            machines.states(("i-00000000000000001",))


def test_a_throttled_look_is_not_an_answer(machines: Ec2Machines, offline: Clients) -> None:
    throttled = saying(offline.client("ec2", HOME), "describe_instances", "RequestLimitExceeded", 503)

    with throttled, Stubber(offline.client("ec2", AWAY)) as away, pytest.raises(Contention):
        away.add_response("describe_instances", described())
        machines.find("r1", 1)


def test_machines_of_other_regions_are_told_of_before_the_region_that_does_not_answer(
    machines: Ec2Machines, offline: Clients
) -> None:
    first, second = PLACES.regions
    no_endpoint(offline.client("ec2", first))
    found: list[str] = []
    with Stubber(offline.client("ec2", second)) as other, pytest.raises(Unavailable, match=f"in {first}"):
        other.add_response("describe_instances", described(instance(1)))

        found.extend(machine.instance_id for machine in machines.managed())

    assert found == ["i-00000000000000001"]


def test_every_region_that_did_not_answer_is_named(machines: Ec2Machines, offline: Clients) -> None:
    for region in PLACES.regions:
        no_endpoint(offline.client("ec2", region))

    with pytest.raises(Unavailable, match=f"in {HOME}.*in {AWAY}"):
        list(machines.managed())


def test_only_the_region_in_which_a_machine_was_seen_is_asked_about_it(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_response("describe_instances", described(instance(1)))
        away.add_response("describe_instances", described())
        list(machines.managed())
    no_endpoint(offline.client("ec2", AWAY))
    with Stubber(offline.client("ec2", HOME)) as home:
        home.add_response("describe_instances", described())

        assert machines.states(("i-00000000000000001",)) == {"i-00000000000000001": InstanceState.GONE}


def test_of_the_machines_ever_seen_only_so_many_are_remembered(
    offline: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spotrelay.aws.machines.SIGHTINGS", 2)
    machines = Ec2Machines(offline, Places({HOME: PLACES.regions[HOME]}), "Spotrelay")
    with Stubber(offline.client("ec2", HOME)) as home:
        home.add_response("describe_instances", described(*map(instance, (1, 2, 1, 3))))
        list(machines.managed())

    seen = [machines._seen.region_of(f"i-{number:017x}") for number in (1, 2, 3)]

    assert seen == [HOME, None, HOME]


def test_prices_of_a_region_out_of_reach_are_not_known_and_the_others_are(
    machines: Ec2Machines, offline: Clients
) -> None:
    abroad = Pool(AWAY, "eu-west-1a", "g5.xlarge")
    no_endpoint(offline.client("ec2", AWAY))
    with Stubber(offline.client("ec2", HOME)) as home:
        row = {"AvailabilityZone": A.zone, "InstanceType": "g5.xlarge", "SpotPrice": "0.5", "Timestamp": NOON}
        home.add_response("describe_spot_price_history", {"SpotPriceHistory": [row]})

        assert machines.prices((A, abroad)) == {A: 0.5}
    with pytest.raises(Unavailable, match=AWAY):
        machines.prices((abroad,))


def test_a_machine_is_ended_in_the_region_that_knows_it(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_client_error("terminate_instances", "InvalidInstanceID.NotFound")
        away.add_response("terminate_instances", {}, {"InstanceIds": ["i-00000000000000001"]})

        machines.terminate("i-00000000000000001")

        away.assert_no_pending_responses()


def test_a_machine_that_may_not_be_ended_is_told_of(machines: Ec2Machines, offline: Clients) -> None:
    with Stubber(offline.client("ec2", HOME)) as home, Stubber(offline.client("ec2", AWAY)) as away:
        home.add_client_error("terminate_instances", "UnauthorizedOperation", http_status_code=403)
        away.add_client_error("terminate_instances", "InvalidInstanceID.NotFound")

        with pytest.raises(Unavailable, match="terminating i-00000000000000001"):
            machines.terminate("i-00000000000000001")


def test_the_newest_price_of_a_pool_counts_and_on_demand_has_none(machines: Ec2Machines, offline: Clients) -> None:
    on_demand = Pool(HOME, "us-east-1a", "g5.xlarge", "on-demand")

    def price(hour: int, dollars: str, zone: str) -> dict[str, Any]:
        at = datetime(2026, 1, 1, hour, tzinfo=UTC)
        return {"AvailabilityZone": zone, "InstanceType": "g5.xlarge", "SpotPrice": dollars, "Timestamp": at}

    history = [price(2, "0.61", "us-east-1a"), price(1, "0.50", "us-east-1a"), price(1, "9.9", "us-east-1z")]
    with Stubber(offline.client("ec2", HOME)) as home:
        home.add_response(
            "describe_spot_price_history",
            {"SpotPriceHistory": history},
            {"InstanceTypes": ["g5.xlarge"], "ProductDescriptions": ["Linux/UNIX"], "StartTime": ManualClock().now()},
        )

        assert machines.prices((A, B, on_demand)) == {A: 0.61}


def test_the_requests_are_understood_by_a_mock_of_ec2(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto knows the wire format of every call here; it runs in one thread only."""
    with mock_aws():
        clients = Clients(HOME, get_session())
        ec2 = clients.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="us-east-1a")["Subnet"]
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        template = ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={"ImageId": image})
        lt = template["LaunchTemplate"]["LaunchTemplateId"]
        places = Places({HOME: Place(lt, "1", {"us-east-1a": subnet["SubnetId"]})})
        machines = Ec2Machines(clients, places, "Spotrelay")

        answer = machines.launch(machines.prepare("r1", 1, 1, Rung((A,), "test")), NOON)

        mine = str(answer.instance_id)
        found = machines.find("r1", 1)
        assert found is not None and found.instance_id == mine and found.pool == A
        assert [machine.instance_id for machine in machines.managed()] == [mine]
        machines.terminate(mine)
        machines.terminate("i-0abcdef0123456789")
        states = machines.states((mine, "i-0abcdef0123456789"))
        assert states == {mine: InstanceState.TERMINATED, "i-0abcdef0123456789": InstanceState.GONE}
        assert list(machines.managed()) == []
