"""The metadata service, asked over HTTP as an instance asks it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.session import Session as BotocoreSession

from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class Machine:
    """One instance's metadata service, on one connection."""

    def __init__(self, endpoint: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=5)
        self.token = ""

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        self._connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def authorize(self) -> None:
        self.token = self.ask("/latest/api/token", "PUT", **{TTL: "60"})[1]

    def get(self, path: str) -> tuple[int, str]:
        return self.ask(f"/latest/{path}", **{TOKEN: self.token})


@pytest.fixture
def instance(cloud: Standalone) -> str:
    kit.template(
        cloud,
        "#!/bin/bash\nsleep 600\n",
        IamInstanceProfile={"Name": "machine"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
    )
    instance = kit.launch(cloud)
    kit.running(cloud, instance)
    return instance


@pytest.fixture
def machine(cloud: Standalone, instance: str) -> Machine:
    machine = Machine(kit.seen(cloud, instance)["metadata_endpoint"])
    machine.authorize()
    return machine


def test_nothing_is_told_without_a_token(machine: Machine) -> None:
    assert machine.ask("/latest/meta-data/instance-id")[0] == 401
    assert machine.ask("/latest/meta-data/instance-id", **{TOKEN: "made-up"})[0] == 401
    assert machine.get("meta-data/instance-id")[0] == 200


@pytest.mark.parametrize("ttl", ["0", "21601", "", "soon", "-1", "1.5"])
def test_a_token_needs_a_lifetime_within_bounds(machine: Machine, ttl: str) -> None:
    assert machine.ask("/latest/api/token", "PUT", **{TTL: ttl})[0] == 400


def test_tokens_are_given_at_one_place_and_to_the_instance_only(machine: Machine) -> None:
    assert machine.ask("/latest/api/token", "PUT")[0] == 400
    assert machine.ask("/2021-07-15/api/token", "PUT", **{TTL: "60"})[0] == 403
    assert machine.ask("/latest/api/token", "PUT", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert machine.ask("/latest/meta-data/instance-id", "POST", **{TOKEN: machine.token})[0] == 405


def test_a_token_ends_with_its_lifetime(machine: Machine) -> None:
    token = machine.ask("/latest/api/token", "PUT", **{TTL: "1"})[1]

    def status() -> int:
        return machine.ask("/latest/meta-data/instance-id", **{TOKEN: token})[0]

    assert status() == 200
    kit.eventually(lambda: status() == 401, "the token ends", within_s=3)


def test_one_instances_token_is_nothing_to_another(cloud: Standalone, machine: Machine) -> None:
    other = kit.launch(cloud)
    kit.running(cloud, other)

    told = Machine(kit.seen(cloud, other)["metadata_endpoint"]).ask(
        "/latest/meta-data/instance-id", **{TOKEN: machine.token}
    )

    assert told[0] == 401


def test_an_instance_learns_who_and_where_it_is(cloud: Standalone, instance: str, machine: Machine) -> None:
    told = {
        path: machine.get(f"meta-data/{path}")
        for path in (
            "instance-id",
            "instance-type",
            "instance-life-cycle",
            "placement/availability-zone",
            "placement/availability-zone-id",
            "placement/region",
            "tags/instance/spotrelay:run",
            "iam/security-credentials/",
        )
    }

    assert {status for status, _ in told.values()} == {200}
    assert [text for _, text in told.values()] == [
        instance,
        "g5.xlarge",
        "spot",
        "us-east-1a",
        "use1-az1",
        "us-east-1",
        "story",
        "machine-role",
    ]
    document = json.loads(machine.get("dynamic/instance-identity/document")[1])
    assert (document["instanceId"], document["region"], document["accountId"]) == (
        instance,
        "us-east-1",
        "000000000000",
    )
    assert machine.get("user-data") == (200, "#!/bin/bash\nsleep 600\n")
    assert {"spotrelay:run", "spotrelay:managed"} <= set(machine.get("meta-data/tags/instance")[1].split("\n"))
    assert {"spot/", "iam/"} & set(machine.get("meta-data/")[1].split("\n")) == {"iam/"}


def test_a_versioned_path_tells_the_same(machine: Machine, instance: str) -> None:
    assert machine.ask("/2021-07-15/meta-data/instance-id", **{TOKEN: machine.token}) == (200, instance)
    assert machine.ask("/1999-01/meta-data/instance-id", **{TOKEN: machine.token})[0] == 404


def test_there_is_no_notice_before_there_is_one(cloud: Standalone, instance: str, machine: Machine) -> None:
    paths = ("spot/instance-action", "spot/termination-time", "events/recommendations/rebalance")

    assert {machine.get(f"meta-data/{path}")[0] for path in paths} == {404}

    cloud.ec2.recommend_rebalance(instance)
    deadline = cloud.ec2.interrupt(instance, notice_s=60)["deadline"]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(deadline))
    assert json.loads(machine.get("meta-data/spot/instance-action")[1]) == {"action": "terminate", "time": moment}
    assert machine.get("meta-data/spot/termination-time") == (200, moment)
    assert set(json.loads(machine.get("meta-data/events/recommendations/rebalance")[1])) == {"noticeTime"}
    assert 58 < deadline - time.time() <= 61


def test_tags_are_told_only_where_the_template_says_so_and_change_at_once(
    cloud: Standalone, instance: str, machine: Machine, ec2: Any
) -> None:
    ec2.create_tags(Resources=[instance], Tags=kit.pairs({"colour": "blue"}))
    assert machine.get("meta-data/tags/instance/colour") == (200, "blue")

    kit.template(cloud)
    silent = kit.launch(cloud)
    kit.running(cloud, silent)
    other = Machine(kit.seen(cloud, silent)["metadata_endpoint"])
    other.authorize()
    assert other.get("meta-data/tags/instance")[0] == 404


def test_the_service_can_be_switched_off_by_the_template(cloud: Standalone) -> None:
    kit.template(cloud, MetadataOptions={"HttpEndpoint": "disabled"})
    instance = kit.launch(cloud)
    kit.running(cloud, instance)

    machine = Machine(kit.seen(cloud, instance)["metadata_endpoint"])

    assert machine.ask("/latest/api/token", "PUT", **{TTL: "60"})[0] == 403


def test_the_first_version_answers_only_where_tokens_are_optional(cloud: Standalone) -> None:
    kit.template(cloud, MetadataOptions={"HttpTokens": "optional"})
    instance = kit.launch(cloud)
    kit.running(cloud, instance)

    machine = Machine(kit.seen(cloud, instance)["metadata_endpoint"])

    assert machine.ask("/latest/meta-data/instance-id") == (200, instance)


def test_the_service_can_break_and_be_mended(cloud: Standalone, instance: str, machine: Machine) -> None:
    cloud.ec2.break_metadata(instance, 503)
    assert machine.get("meta-data/instance-id")[0] == 503

    cloud.ec2.break_metadata(instance, None)
    assert machine.get("meta-data/instance-id") == (200, instance)


def test_botocore_finds_the_roles_credentials(
    cloud: Standalone, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", kit.seen(cloud, instance)["metadata_endpoint"])

    credentials = BotocoreSession().get_credentials()

    assert credentials is not None
    assert credentials.method == "iam-role"
    assert credentials.access_key == f"ASIA{instance[2:].upper()}"


def test_nonsense_is_a_bad_request_and_harms_nobody(machine: Machine, cloud: Standalone, instance: str) -> None:
    address = urlsplit(kit.seen(cloud, instance)["metadata_endpoint"])
    for nonsense in (
        b"\x00\xff\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"x" * 40000,
    ):
        with socket.create_connection(("127.0.0.1", address.port or 0), timeout=5) as connection:
            connection.sendall(nonsense)
            assert connection.recv(12) == b"HTTP/1.1 400"

    assert machine.get("meta-data/instance-id") == (200, instance)


def test_a_poll_takes_milliseconds(machine: Machine) -> None:
    took = []
    for _ in range(50):
        began = time.perf_counter()
        machine.get("meta-data/spot/instance-action")
        took.append(time.perf_counter() - began)

    assert sorted(took)[25] < 0.02
