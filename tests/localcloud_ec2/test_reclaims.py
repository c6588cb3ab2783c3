"""How machines are taken: with a notice, without one, or in appearance only; and what the events say of it."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from spotrelay.localcloud.ec2.lifecycle import NotPossible
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit

WARNING = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"
FULFILLED = "EC2 Spot Instance Request Fulfillment"


@pytest.fixture
def instance(cloud: Standalone) -> str:
    instance = kit.launch(cloud)
    kit.running(cloud, instance)
    return instance


def told(cloud: Standalone, instance: str, count: int) -> list[str]:
    """Wait for this many events; what they say."""
    kit.eventually(lambda: len(kit.states_told(cloud, instance)) >= count, f"{count} events")
    return kit.states_told(cloud, instance)


def test_a_life_is_told_in_order_as_ec2_writes_it(cloud: Standalone, ec2: Any, instance: str) -> None:
    ec2.terminate_instances(InstanceIds=[instance])

    assert told(cloud, instance, 5) == [FULFILLED, "pending", "running", "shutting-down", "terminated"]
    event = cloud.world.events(instance)[1]
    assert (event["source"], event["account"], event["region"]) == ("aws.ec2", "000000000000", "us-east-1")
    assert event["resources"] == [f"arn:aws:ec2:us-east-1:000000000000:instance/{instance}"]
    assert event["detail"] == {"instance-id": instance, "state": "pending"}
    assert time.strptime(event["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert len({e["id"] for e in cloud.world.events(instance)}) == 5


def test_a_notice_comes_before_the_end_and_the_machine_works_until_then(cloud: Standalone, instance: str) -> None:
    deadline = cloud.ec2.interrupt(instance, notice_s=0.3)["deadline"]

    assert told(cloud, instance, 4)[3:] == [WARNING]
    assert kit.seen(cloud, instance)["alive_processes"]
    kit.terminated(cloud, instance)
    seen = kit.seen(cloud, instance)
    assert told(cloud, instance, 6)[3:] == [WARNING, "shutting-down", "terminated"]
    assert deadline <= seen["ended_at"] < deadline + 1.0
    assert (seen["StateReason"], seen["alive_processes"]) == ("Server.SpotInstanceTermination", [])
    warning = cloud.world.events(instance)[3]
    assert warning["resources"] == [f"arn:aws:ec2:us-east-1a:instance/{instance}"]
    assert warning["detail"] == {"instance-id": instance, "instance-action": "terminate"}


def test_the_length_of_a_notice_is_scaled(cloud: Standalone, instance: str) -> None:
    before = time.time()

    deadline = cloud.ec2.interrupt(instance)["deadline"]

    assert before + 1.2 <= deadline <= before + 2.5


def test_a_warning_can_come_twice_and_after_the_end(cloud: Standalone, instance: str) -> None:
    cloud.ec2.interrupt(instance, notice_s=0.0, duplicate=2, shuffle=True)

    assert told(cloud, instance, 7)[3:] == [WARNING, "shutting-down", "terminated", WARNING]
    first, second = (e for e in cloud.world.events(instance) if e["detail-type"] == WARNING)
    assert first == second


def test_a_single_shuffled_warning_comes_too_late(cloud: Standalone, instance: str) -> None:
    cloud.ec2.interrupt(instance, notice_s=0.0, shuffle=True)

    assert told(cloud, instance, 6)[3:] == ["shutting-down", "terminated", WARNING]


def test_a_rebalance_recommendation_can_come_first_and_alone(cloud: Standalone, instance: str) -> None:
    cloud.ec2.recommend_rebalance(instance)
    assert told(cloud, instance, 4)[3:] == [REBALANCE]
    assert kit.state(cloud, instance) == "running"

    cloud.ec2.interrupt(instance, notice_s=60, rebalance_first=True)
    assert told(cloud, instance, 6)[3:] == [REBALANCE, REBALANCE, WARNING]


def test_a_machine_ended_during_its_notice_ends_once(cloud: Standalone, ec2: Any, instance: str) -> None:
    cloud.ec2.interrupt(instance, notice_s=0.5, duplicate=2, shuffle=True)
    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)

    assert told(cloud, instance, 7)[3:] == [WARNING, "shutting-down", "terminated", WARNING]
    assert kit.seen(cloud, instance)["StateReason"] == "Client.UserInitiatedShutdown"


def test_lost_hardware_gives_no_warning(cloud: Standalone, instance: str) -> None:
    cloud.ec2.kill(instance)

    assert kit.seen(cloud, instance)["alive_processes"] == []
    assert told(cloud, instance, 5)[3:] == ["shutting-down", "terminated"]


def test_a_machine_that_is_ended_before_it_boots_never_runs(cloud: Standalone, ec2: Any, tmp_path: Path) -> None:
    kit.template(cloud, f"#!/bin/sh\necho >{tmp_path}/ran\n")
    instance = kit.launch(cloud)

    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)

    told_of = kit.states_told(cloud, instance)
    assert ("running" in told_of) == (kit.seen(cloud, instance)["pgid"] is not None)
    assert kit.seen(cloud, instance)["alive_processes"] == []


def test_a_zombie_is_terminated_for_ec2_and_works_again_when_woken(cloud: Standalone, ec2: Any, tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    kit.template(cloud, f"#!/bin/bash\nwhile true; do echo >>{beats}; sleep 0.01; done\n")
    instance = kit.launch(cloud)
    kit.eventually(lambda: beats.exists() and beats.stat().st_size > 3, "it beats")
    endpoint = kit.seen(cloud, instance)["metadata_endpoint"]

    cloud.ec2.zombify(instance)
    kit.terminated(cloud, instance)
    size = beats.stat().st_size
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]

    assert described["State"]["Name"] == "terminated"
    assert kit.seen(cloud, instance)["alive_processes"]
    assert told(cloud, instance, 5)[3:] == ["shutting-down", "terminated"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{endpoint}/latest/meta-data/", timeout=2)
    assert beats.stat().st_size == size
    cloud.ec2.wake(instance)
    kit.eventually(lambda: beats.stat().st_size > size, "the zombie beats")
    cloud.ec2.kill(instance)
    assert kit.seen(cloud, instance)["alive_processes"] == []
    assert told(cloud, instance, 5)[3:] == ["shutting-down", "terminated"]


def test_a_woken_zombie_can_still_switch_itself_off(cloud: Standalone) -> None:
    kit.template(cloud, "#!/bin/bash\ntrap 'shutdown -h now' USR1\nwhile true; do sleep 0.01; done\n")
    instance = kit.launch(cloud)
    leader = kit.eventually(lambda: kit.seen(cloud, instance)["pgid"], "it runs")
    kit.eventually(lambda: len(kit.seen(cloud, instance)["alive_processes"]) > 1, "it loops")
    cloud.ec2.zombify(instance)
    cloud.ec2.wake(instance)

    os.kill(leader, signal.SIGUSR1)

    kit.eventually(lambda: not kit.seen(cloud, instance)["alive_processes"], "it is off")


@pytest.mark.parametrize("deed", ["interrupt", "zombify", "stop_group", "break_metadata"])
def test_what_cannot_happen_to_an_ended_machine_is_said(cloud: Standalone, instance: str, deed: str) -> None:
    cloud.ec2.kill(instance)
    kit.terminated(cloud, instance)

    if deed == "stop_group":
        cloud.ec2.stop_group(instance)
        return
    with pytest.raises(NotPossible, match=instance):
        getattr(cloud.ec2, deed)(instance)


def test_on_demand_machines_are_not_interrupted(cloud: Standalone) -> None:
    target = {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"}
    instance = kit.launch(cloud, TargetCapacitySpecification=target)

    with pytest.raises(NotPossible, match="on-demand"):
        cloud.ec2.interrupt(instance)


def test_an_unknown_instance_is_said_to_be_unknown(cloud: Standalone) -> None:
    with pytest.raises(NotPossible, match="i-none"):
        cloud.ec2.kill("i-none")


def test_what_happened_is_written_down(cloud: Standalone, instance: str, tmp_path: Path) -> None:
    cloud.ec2.interrupt(instance, notice_s=0.0)
    kit.terminated(cloud, instance)

    lines = [json.loads(line) for line in (tmp_path / "instances.jsonl").read_text().splitlines()]

    expected = ["launched", "pending", "running", "booted", "noticed", "reclaimed", "shutting-down", "terminated"]
    assert [line["what"] for line in lines] == expected
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert lines[0]["pool"]["zone"] == "us-east-1a"
    assert json.loads(json.dumps(cloud.ec2.instances()))[0]["InstanceId"] == instance


def test_a_bus_that_refuses_an_event_does_not_stop_the_others(
    cloud: Standalone, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []

    def emit(event: dict[str, Any]) -> None:
        heard.append(event)
        raise OSError("the bus is down")

    monkeypatch.setattr(cloud.ec2._lifecycle._outbox, "_emit", emit)
    instance = kit.launch(cloud)
    kit.running(cloud, instance)

    kit.eventually(lambda: len(heard) == 3, "three events")


def test_a_storm_of_reclaims_leaves_nothing(cloud: Standalone) -> None:
    kit.template(cloud, "#!/bin/bash\n(setsid sleep 600 &)\nexec sleep 600\n")
    made = [kit.launch(cloud) for _ in range(20)]
    pids = [pid for instance in made for pid in kit.running(cloud, instance)]

    for instance in made:
        cloud.ec2.interrupt(instance, notice_s=0.0, duplicate=2)
    kit.eventually(lambda: all(i["State"]["Name"] == "terminated" for i in cloud.ec2.instances()), "all are gone")

    assert [i["alive_processes"] for i in cloud.ec2.instances()] == [[]] * 20
    assert len(pids) >= 20
    for instance in made:
        assert kit.states_told(cloud, instance).count(WARNING) == 2
