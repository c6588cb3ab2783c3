"""The EC2 adapter against the embedded cloud's EC2, which was written from botocore's models alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from spotrelay.aws.catalogue import instance_kinds
from spotrelay.aws.clients import Clients
from spotrelay.aws.machines import Ec2Machines
from spotrelay.aws.places import Place, Places
from spotrelay.core.errors import Contention, InvalidInput, OutcomeUnknown
from spotrelay.core.placement import FailureScope, Pool, Rung
from spotrelay.core.requirements import Requirements, matching
from spotrelay.localcloud.client import LocalCloud
from spotrelay.testing.contracts.machines import ChoosingContract, Ec2UnderTest, launched
from spotrelay.testing.contracts.samples import NOON, new_id
from tests.aws.wire import count, lose_replies, no_endpoint

pytestmark = pytest.mark.loop

REGION, AWAY = "us-east-1", "eu-west-1"
USER_DATA = base64.b64encode(b"#!/bin/bash\ntime_scale=1\nexec sleep 600\n").decode()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    home: Path = tmp_path_factory.mktemp("cloud")
    with LocalCloud(home, time_scale=0.02) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def places(cloud: LocalCloud) -> Places:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    zones = [f"{REGION}{letter}" for letter in "ab"]
    subnets = {
        zone: ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones)
    }
    template = ec2.create_launch_template(
        LaunchTemplateName="contract", LaunchTemplateData={"ImageId": "ami-0123456789abcdef0", "UserData": USER_DATA}
    )["LaunchTemplate"]
    here = Place(template["LaunchTemplateId"], str(template["LatestVersionNumber"]), subnets)
    return Places({REGION: here, AWAY: Place("lt-0away", "1", {f"{AWAY}a": "subnet-0a"})})


@pytest.fixture
def ours(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients as in production; every machine of the test is ended after it."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    clients = Clients(REGION, get_session())
    yield clients
    cloud.allow({})
    for instance in cloud.instances():
        clients.client("ec2").terminate_instances(InstanceIds=[_id(instance)])


def _id(instance: dict[str, Any]) -> str:
    return str(instance.get("instance_id") or instance["InstanceId"])


@pytest.fixture
def ec2(cloud: LocalCloud, places: Places, ours: Clients) -> Ec2UnderTest:
    machines = Ec2Machines(ours, places, "Spotrelay")
    pools = tuple(Pool(region, zone, "g5.xlarge") for region, zone in places.zones if region == REGION)

    def refuse(pool: Pool, code: str) -> None:
        cloud.refuse({"zone": pool.zone, "instance_type": pool.instance_type}, code)

    def cut_off(region: str) -> None:
        for client in (ours.client("ec2", region), ours.launcher(region)):
            no_endpoint(client)

    def run_short(pool: Pool, left: int) -> None:
        facts = {"zone": pool.zone, "instance_type": pool.instance_type}
        cloud.refuse(facts, "InsufficientInstanceCapacity", after=left)

    return Ec2UnderTest(machines, pools, refuse, Pool(AWAY, f"{AWAY}a", "g5.xlarge"), cut_off, run_short)


class TestEc2Machines(ChoosingContract):
    """The suite's own fixture is given by the module's."""

    @pytest.fixture
    def ec2(self, ec2: Ec2UnderTest) -> Ec2UnderTest:
        return ec2

    @pytest.fixture
    def rounds(self) -> int:
        return 3


def test_a_launch_whose_reply_was_lost_is_the_same_machine_when_sent_again(ec2: Ec2UnderTest, ours: Clients) -> None:
    run_id = new_id()
    request = ec2.machines.prepare(run_id, 1, 1, Rung(ec2.pools, "test"))
    wire = lose_replies(ours.launcher(REGION), "CreateFleet", times=1)
    with pytest.raises(OutcomeUnknown):
        ec2.machines.launch(request, NOON)
    found = ec2.machines.find(run_id, 1)

    answer = ec2.machines.launch(request, NOON)

    assert wire.sent == 1
    assert found is not None and found.instance_id == answer.instance_id
    assert [m.instance_id for m in ec2.machines.managed() if m.run_id == run_id] == [answer.instance_id]


def test_no_capacity_as_a_server_error_refuses_every_pool_at_the_first_try(
    ec2: Ec2UnderTest, ours: Clients, cloud: LocalCloud
) -> None:
    cloud.refuse({"instance_type": "g5.xlarge"}, "InsufficientInstanceCapacity", form="exception")
    wire = count(ours.launcher(REGION), "CreateFleet")

    answer = ec2.machines.launch(ec2.machines.prepare(new_id(), 1, 1, Rung(ec2.pools, "test")), NOON)

    assert {(r.pool, r.scope) for r in answer.refusals} == {(pool, FailureScope.POOL) for pool in ec2.pools}
    assert wire.asked == 1


@pytest.mark.parametrize(
    ("code", "scope"),
    [
        ("MaxSpotInstanceCountExceeded", FailureScope.QUOTA),
        ("InsufficientFreeAddressesInSubnet", FailureScope.ZONE),
        ("UnauthorizedOperation", FailureScope.CONFIGURATION),
    ],
)
def test_other_refusals_keep_their_scope_over_the_wire(
    ec2: Ec2UnderTest, cloud: LocalCloud, code: str, scope: FailureScope
) -> None:
    cloud.refuse({}, code, form="exception")

    answer = ec2.machines.launch(ec2.machines.prepare(new_id(), 1, 1, Rung(ec2.pools, "test")), NOON)

    assert {(r.scope, r.code) for r in answer.refusals} == {(scope, code)}


def test_a_throttled_launch_is_no_refusal(ec2: Ec2UnderTest, cloud: LocalCloud) -> None:
    cloud.refuse({}, "RequestLimitExceeded", form="exception", times=1)
    request = ec2.machines.prepare(new_id(), 1, 1, Rung(ec2.pools, "test"))

    with pytest.raises(Contention):
        ec2.machines.launch(request, NOON)

    assert ec2.machines.launch(request, NOON).instance_id is not None


def test_an_on_demand_machine_is_told_from_a_spot_one(ec2: Ec2UnderTest) -> None:
    pools = tuple(replace(pool, market="on-demand") for pool in ec2.pools)
    run_id = new_id()

    answer = launched(replace(ec2, pools=pools), run_id)

    found = ec2.machines.find(run_id, 1)
    assert found is not None and found.pool == answer.pool
    assert answer.pool in pools


def test_requirements_are_resolved_with_what_the_region_describes_page_after_page(ours: Clients) -> None:
    client = ours.client("ec2")
    asked: list[str] = []
    client.meta.events.register("before-call.ec2.DescribeInstanceTypes", lambda **_: asked.append("page"))

    offered = matching(Requirements(gpus=1, gpu_memory_gib=24), {REGION: instance_kinds(client)})

    assert offered[REGION][:3] == ("g5.xlarge", "g6.xlarge", "g5.2xlarge")
    assert asked
    with pytest.raises(InvalidInput, match=r"Nearest: .*p5.48xlarge \(8 × NVIDIA H100 with 80 GiB"):
        matching(Requirements(gpus=8, gpu_memory_gib=141), {REGION: instance_kinds(client)})
